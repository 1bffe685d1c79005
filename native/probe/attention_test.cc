#include "probe/attention_test.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace redrafter {
namespace {

constexpr int64_t kHeads = 4, kKvHeads = 2, kDim = 40, kWidth = (kHeads + 2 * kKvHeads) * kDim;
constexpr int32_t kContext = 298;
constexpr int64_t kBlocks = 20, kSlots = kBlocks * kBlockTokens;
constexpr float kScale = 0.4f;
// So much larger are the values of the tree, so that one which is seen by the wrong node shows.
constexpr float kTreeValues = 16.0f;

// A node sees the context and the slots of its path, its own last.
using Path = std::vector<int32_t>;

// The root in slot 298; its children 299 and 300; 301, a child of 300. Two slots of its block are left.
const std::vector<Path> kTree = {{298}, {298, 299}, {298, 300}, {298, 300, 301}};

struct Keys {
  Floats k, v;  // [kSlots, kKvHeads, kDim]
};

Keys make_keys(DType dtype) {
  Keys keys{numbers(21, kSlots * kKvHeads * kDim, dtype), numbers(22, kSlots * kKvHeads * kDim, dtype)};
  const size_t tree = static_cast<size_t>(kContext * kKvHeads * kDim);
  std::for_each(keys.v.begin() + static_cast<std::ptrdiff_t>(tree), keys.v.end(),
                [](float& x) { x *= kTreeValues; });
  return keys;
}

// Where slot s lies is for a table to say: block i of the sequence is block kBlocks - 1 - i of the cache.
int32_t block_of(int64_t index) { return static_cast<int32_t>(kBlocks - 1 - index); }

// The cache of one side. Slots that no node has hold NaN.
KvLayer fill_cache(Side& side, const Keys& keys, DType dtype) {
  KvLayer kv = side.backend().kv_layout(kKvHeads, kDim, dtype);
  const auto element = static_cast<int64_t>(dtype_bytes(kv.dtype));
  kv.k = side.out<uint8_t>(kBlocks * kv.k_block_stride * element);
  kv.v = side.out<uint8_t>(kBlocks * kv.v_block_stride * element);
  const int64_t padded = head_dim_padded(kDim), k_floats = kKvHeads * kDim * kBlockTokens;
  for (int64_t index = 0; index < kBlocks; ++index) {
    Floats data(static_cast<size_t>(k_floats + kKvHeads * kBlockTokens * padded), 0.0f);
    for (int64_t t = 0; t < kBlockTokens; ++t) {
      const int64_t slot = index * kBlockTokens + t;
      const bool used = slot <= kTree.back().back();
      for (int64_t n = 0; n < kKvHeads * kDim; ++n) {
        const auto from = static_cast<size_t>(slot * kKvHeads * kDim + n);
        const int64_t v = k_floats + (n / kDim * kBlockTokens + t) * padded + n % kDim;
        const float nan = std::numeric_limits<float>::quiet_NaN();
        data[static_cast<size_t>(n * kBlockTokens + t)] = used ? keys.k[from] : nan;
        data[static_cast<size_t>(v)] = used ? keys.v[from] : nan;
      }
    }
    side.backend().kv_import({kv, block_of(index), kBlockTokens, side.put(data)}, side.stream());
  }
  return kv;
}

// Row i is the node of paths[i], behind `context` positions.
Floats attend(Side& side, const KvLayer& kv, const Floats& qkv, int32_t context,
              const std::vector<Path>& paths) {
  const auto rows = static_cast<int64_t>(paths.size());
  std::vector<int32_t> position, slot, sequence, contexts, begin{0}, tail, table;
  for (const Path& path : paths) {
    position.push_back(context + static_cast<int32_t>(path.size()) - 1);
    slot.push_back(path.back());
    sequence.push_back(0);
    contexts.push_back(context);
    tail.insert(tail.end(), path.begin(), path.end());
    begin.push_back(static_cast<int32_t>(tail.size()));
  }
  for (int64_t index = 0; index < kBlocks; ++index) table.push_back(block_of(index));
  Batch batch;
  batch.rows = rows;
  batch.position = side.put(position);
  batch.slot = side.put(slot);
  batch.sequence = side.put(sequence);
  batch.context = side.put(contexts);
  batch.tail_begin = side.put(begin);
  batch.tail_slots = side.put(tail);
  batch.block_tables = side.put(table);
  batch.table_stride = kBlocks;
  batch.sequences = 1;
  batch.max_positions = kSlots;
  const int64_t scratch = attention_scratch(kHeads, kKvHeads, kDim, kSlots);
  float* y = side.out<float>(rows * kHeads * kDim);
  side.backend().attention({side.put(qkv), y, kv, batch, kHeads, kScale, side.out<float>(scratch), scratch},
                           side.stream());
  return side.get("attention", y, rows * kHeads * kDim);
}

// How far the two sides may be apart in each dimension of one head of a node; as test/native/ops/paged.ts
// derives it. Weights are rounded to the dtype of the cache, in chunks of at least 16 positions.
std::vector<double> bounds_of(const Keys& keys, const float* q, int64_t head, const Path& path, DType dtype) {
  const int64_t kv_head = head / (kHeads / kKvHeads),
                positions = kContext + static_cast<int64_t>(path.size());
  const auto at = [&](int64_t position) {
    const int64_t slot = position < kContext ? position : path[static_cast<size_t>(position - kContext)];
    return static_cast<size_t>((slot * kKvHeads + kv_head) * kDim);
  };
  std::vector<double> scores;
  double score_error = 0, largest = -std::numeric_limits<double>::infinity(), smallest = -largest, total = 0;
  for (int64_t p = 0; p < positions; ++p) {
    double sum = 0, magnitude = 0;
    for (int64_t i = 0; i < kDim; ++i) {
      const double term = double{q[i]} * double{keys.k[at(p) + static_cast<size_t>(i)]};
      sum += term;
      magnitude += std::fabs(term);
    }
    scores.push_back(sum * double{kScale});
    score_error = std::max(score_error, product_bound(kDim) * magnitude * double{kScale});
    largest = std::max(largest, scores.back());
    smallest = std::min(smallest, scores.back());
  }
  for (double& score : scores) total += score = std::exp(score - largest);
  const double exponential = kUnit * (largest - smallest) + kExp + 2 * kUnit;
  const double weight = dtype == DType::kF16 ? 0x1p-11 : 0x1p-8, tiny = dtype == DType::kF16 ? 0x1p-25 : 0;
  const double chunks = std::ceil(static_cast<double>(positions) / 16);
  const double relative =
      2 * (2 * score_error + (2 + chunks) * exponential + weight) + product_bound(2 * positions);
  std::vector<double> bounds(static_cast<size_t>(kDim), 1e-30);
  for (int64_t p = 0; p < positions; ++p) {
    for (size_t i = 0; i < bounds.size(); ++i) {
      const double value = std::fabs(double{keys.v[at(p) + i]});
      bounds[i] += (relative * scores[static_cast<size_t>(p)] / total + 2 * tiny) * value;
    }
  }
  return bounds;
}

// The path of the last node moves to where plain decoding would have put it.
void commit(Side& side, const KvLayer& kv) {
  std::vector<int32_t> table, path;
  for (int64_t index = 0; index < kBlocks; ++index) table.push_back(block_of(index));
  for (const int32_t slot : kTree.back()) path.push_back(slot - kContext);
  const std::vector<int32_t> committed{kContext}, length{static_cast<int32_t>(path.size())};
  side.backend().kv_compact({kv, side.put(table), side.put(committed), side.put(path), side.put(length), 1,
                             kBlocks, static_cast<int64_t>(path.size())},
                            side.stream());
}

}  // namespace

void test_attention(Side& device, Side& cpu, DType dtype) {
  const Keys keys = make_keys(dtype);
  const auto rows = static_cast<int64_t>(kTree.size());
  const Floats qkv = numbers(23, rows * kWidth, dtype);
  const KvLayer there = fill_cache(device, keys, dtype), here = fill_cache(cpu, keys, dtype);
  const Floats found = attend(device, there, qkv, kContext, kTree);
  const Floats expected = attend(cpu, here, qkv, kContext, kTree);
  const std::string name = std::string("attention in ") + dtype_name(dtype);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t head = 0; head < kHeads; ++head) {
      const Path& path = kTree[static_cast<size_t>(row)];
      const std::vector<double> bounds =
          bounds_of(keys, &qkv[static_cast<size_t>(row * kWidth + head * kDim)], head, path, dtype);
      for (int64_t i = 0; i < kDim; ++i) {
        const auto n = static_cast<size_t>((row * kHeads + head) * kDim + i);
        expect_near(name, static_cast<int64_t>(n), double{found[n]}, double{expected[n]},
                    bounds[static_cast<size_t>(i)]);
      }
    }
  }
  commit(device, there);
  const int32_t last = kContext + static_cast<int32_t>(kTree.back().size()) - 1;
  const Floats q(qkv.end() - kWidth, qkv.end());
  expect_equal(name + " of a committed node", attend(device, there, q, last, {{last}}),
               Floats(found.end() - kHeads * kDim, found.end()));
}

}  // namespace redrafter
