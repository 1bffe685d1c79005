// Row invariance on a real device, where the matrix units themselves take part: the bits of a row must not
// depend on how many rows share the launch. Every variant of a kernel that the number of rows selects is
// among the sizes.
#include <algorithm>
#include <cstring>
#include <map>
#include <random>

#include "case.h"

namespace redrafter::lab {
namespace {

constexpr int64_t kMostRows = 200;

std::vector<int64_t> sizes() {
  std::vector<int64_t> all;
  for (int64_t rows = 1; rows <= 65; ++rows) all.push_back(rows);
  all.push_back(130);
  all.push_back(kMostRows);
  return all;
}

std::vector<uint32_t> fetch(Memory& memory, const float* from, int64_t floats) {
  std::vector<uint32_t> bits(static_cast<size_t>(floats));
  memory.backend().download(bits.data(), from, bits.size() * sizeof(uint32_t), memory.stream());
  return bits;
}

bool same_rows(const std::vector<uint32_t>& a, const std::vector<uint32_t>& b, int64_t rows, int64_t width) {
  return std::memcmp(a.data(), b.data(), static_cast<size_t>(rows * width) * sizeof(uint32_t)) == 0;
}

void check_matmul(const Backend& backend, Stream& stream, int64_t n, int64_t k,
                  std::vector<std::string>& faults) {
  Memory memory(backend, stream);
  const Matrix w = memory.matrix(n, k);
  const float* x = memory.floats(kMostRows * k);
  float* y = memory.empty<float>(kMostRows * n);
  const auto run = [&](int64_t rows) {
    backend.matmul({x, w, nullptr, nullptr, y, rows, k, n}, stream);
    return fetch(memory, y, rows * n);
  };
  const std::vector<uint32_t> all = run(kMostRows);
  const int64_t workspace = stream.workspace_bytes;
  for (const bool small : {false, true}) {
    stream.workspace_bytes = small ? 0 : workspace;
    for (const int64_t rows : sizes()) {
      if (same_rows(run(rows), all, rows, n)) continue;
      faults.push_back("matmul " + std::to_string(n) + " x " + std::to_string(k) + ": " +
                       std::to_string(rows) + " rows differ from the same of " + std::to_string(kMostRows) +
                       (small ? " without a workspace" : ""));
    }
  }
  stream.workspace_bytes = workspace;
}

// Rows of w that are equal, and rows of x that are equal: every output must have the same bits, wherever in a
// tile its row and its column stand.
void check_places(const Backend& backend, Stream& stream, int64_t k, std::vector<std::string>& faults) {
  constexpr int64_t kOutputs = 40, kRows = 72;
  Memory memory(backend, stream);
  std::mt19937 random(static_cast<unsigned>(k));
  std::normal_distribution<float> normal;
  std::vector<uint16_t> weights(static_cast<size_t>(kOutputs * k));
  std::vector<float> input(static_cast<size_t>(kRows * k));
  for (int64_t i = 0; i < k; ++i) {
    const uint16_t weight = f32_to_bf16(normal(random));
    const float value = normal(random);
    for (int64_t n = 0; n < kOutputs; ++n) weights[static_cast<size_t>(n * k + i)] = weight;
    for (int64_t r = 0; r < kRows; ++r) input[static_cast<size_t>(r * k + i)] = value;
  }
  const Matrix w = memory.matrix(kOutputs, k);
  backend.matmul_pack({weights.data(), 0, kOutputs, w}, stream);
  const float* x = memory.of(input);
  float* y = memory.empty<float>(kRows * kOutputs);
  for (const int64_t rows : {1, 8, 9, 16, 64, 72}) {
    backend.matmul({x, w, nullptr, nullptr, y, rows, k, kOutputs}, stream);
    const std::vector<uint32_t> bits = fetch(memory, y, rows * kOutputs);
    const auto other = std::find_if(bits.begin(), bits.end(), [&](uint32_t b) { return b != bits.front(); });
    if (other == bits.end()) continue;
    const int64_t at = other - bits.begin();
    faults.push_back("matmul of equal rows, K " + std::to_string(k) + ", " + std::to_string(rows) +
                     " rows: output " + std::to_string(at % kOutputs) + " of row " +
                     std::to_string(at / kOutputs) + " differs from that of row 0");
  }
}

// Token t of one sequence as the only row, as the last of a prompt chunk, and as node of a tree whose path is
// the prompt.
void check_attention(const Backend& backend, Stream& stream, const ModelShape& m, int64_t position,
                     std::vector<std::string>& faults) {
  Memory memory(backend, stream);
  const int64_t width = m.qkv(), out = m.heads * m.head_dim, blocks = position / kBlockTokens + 8;
  KvLayer kv = backend.kv_layout(m.kv_heads, m.head_dim, DType::kBF16);
  kv.k = memory.matrix(blocks * kv.k_block_stride / 16, 16).data;
  kv.v = memory.matrix(blocks * kv.v_block_stride / 16, 16).data;
  std::vector<int32_t> table;
  for (int64_t i = 0; i < blocks; ++i) table.push_back(static_cast<int32_t>(blocks - 1 - i));
  const int32_t* tables = memory.of(table);
  const float* qkv = memory.floats(64 * width);
  float* y = memory.empty<float>(64 * out);

  // The last `rows` positions up to `position`, of which each row sees `committed(p)` as context.
  const auto run = [&](int64_t rows, const std::function<int64_t(int64_t)>& committed) {
    std::vector<int32_t> positions, contexts, begin{0}, tail, zeros;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t p = position - rows + 1 + r, context = committed(p);
      positions.push_back(static_cast<int32_t>(p));
      contexts.push_back(static_cast<int32_t>(context));
      for (int64_t j = context; j <= p; ++j) tail.push_back(static_cast<int32_t>(j));
      begin.push_back(static_cast<int32_t>(tail.size()));
      zeros.push_back(0);
    }
    tail.push_back(0);
    Batch b;
    b.rows = rows;
    b.token = b.sequence = memory.of(zeros);
    b.position = b.slot = memory.of(positions);
    b.context = memory.of(contexts);
    b.tail_begin = memory.of(begin);
    b.tail_slots = memory.of(tail);
    b.block_tables = tables;
    b.table_stride = blocks;
    b.sequences = 1;
    b.max_positions = position + 1;
    AttentionParams p{};
    p.qkv = qkv + (64 - rows) * width, p.y = y, p.kv = kv, p.batch = b, p.heads = m.heads, p.scale = 0.088f;
    backend.attention(p, stream);
    std::vector<uint32_t> bits = fetch(memory, y, rows * out);
    bits.erase(bits.begin(), bits.end() - out);  // the row at `position`
    return bits;
  };
  const std::vector<uint32_t> plain = run(1, [](int64_t p) { return p; });
  const int64_t workspace = stream.workspace_bytes;
  for (const bool small : {false, true}) {
    stream.workspace_bytes = small ? 0 : workspace;
    for (const int64_t rows : {1, 2, 5, 8, 31, 32, 64}) {
      if (rows > position + 1) continue;
      const std::map<std::string, std::function<int64_t(int64_t)>> views = {
          {"prompt", [](int64_t p) { return p + 1; }},
          {"tree", [=](int64_t) { return position - rows + 1; }},
      };
      for (const auto& [name, committed] : views) {
        if (run(rows, committed) == plain) continue;
        faults.push_back("attention at position " + std::to_string(position) + ": the last of " +
                         std::to_string(rows) + " rows of a " + name + " differs from plain decoding" +
                         (small ? " without a workspace" : ""));
      }
    }
  }
  stream.workspace_bytes = workspace;
}

}  // namespace

std::vector<std::string> invariance_faults(const std::vector<ModelShape>& models, const Backend& backend,
                                           Stream& stream) {
  std::vector<std::string> faults;
  check_matmul(backend, stream, 17, 33, faults);
  for (const int64_t k : {33, 160, 700}) check_places(backend, stream, k, faults);
  for (const ModelShape& m : models) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{m.qkv(), m.hidden}, {m.hidden, m.ffn}}) {
      check_matmul(backend, stream, n, k, faults);
      check_places(backend, stream, k, faults);
    }
    for (const int64_t position : {0, 15, 16, 63, 64, 255, 256, 300, 1023, 4100}) {
      if (position <= 16 * m.context) check_attention(backend, stream, m, position, faults);
    }
  }
  return faults;
}

}  // namespace redrafter::lab
