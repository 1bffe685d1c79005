#include "probe/self_test.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "probe/attention_test.h"

namespace redrafter {
namespace {

std::string named(const char* op, DType dtype, int64_t rows) {
  return std::string(op) + " in " + dtype_name(dtype) + " of " + std::to_string(rows) + " rows";
}

Floats product(Side& side, const Matrix& w, const float* x, int64_t rows) {
  float* y = side.out<float>(rows * w.rows);
  side.backend().matmul({x, w, nullptr, nullptr, y, rows, w.cols, w.rows}, side.stream());
  return side.get("matmul", y, rows * w.rows);
}

// Of one output: the sum of the magnitudes of its products.
double magnitude(const Floats& x, int64_t row, const Floats& w, int64_t n, int64_t terms) {
  double sum = 0;
  for (int64_t k = 0; k < terms; ++k) {
    sum += std::fabs(double{x[static_cast<size_t>(row * terms + k)]} *
                     double{w[static_cast<size_t>(n * terms + k)]});
  }
  return sum;
}

// The kernels for few and for many rows must give a row the same bits; K is long enough to be split.
void test_matmul(Side& device, Side& cpu, DType dtype) {
  constexpr int64_t kMany = 40, kFew = 8, kOutputs = 272, kTerms = 528;
  const Floats weights = numbers(1, kOutputs * kTerms, dtype), x = numbers(2, kMany * kTerms, dtype);
  const Matrix w = device.matrix(weights, kOutputs, dtype);
  const float* there = device.put(x);
  const Floats found = product(device, w, there, kMany);
  const Floats expected = product(cpu, cpu.matrix(weights, kOutputs, dtype), cpu.put(x), kMany);
  for (int64_t i = 0; i < kMany * kOutputs; ++i) {
    const auto at = static_cast<size_t>(i);
    const double bound = product_bound(kTerms) * magnitude(x, i / kOutputs, weights, i % kOutputs, kTerms);
    expect_near(named("matmul", dtype, kMany), i, double{found[at]}, double{expected[at]}, bound);
  }
  for (const auto& [first, rows] :
       {std::pair{int64_t{0}, kFew}, {int64_t{0}, int64_t{1}}, {kMany - 1, int64_t{1}}}) {
    const auto begin = found.begin() + first * kOutputs;
    expect_equal(named("matmul", dtype, rows) + ", which are also part of 40",
                 product(device, w, there + first * kTerms, rows), Floats(begin, begin + rows * kOutputs));
  }
  Floats spoiled(x.begin(), x.begin() + kFew * kTerms);  // a row of NaN changes no other
  std::fill_n(spoiled.end() - kTerms, kTerms, std::numeric_limits<float>::quiet_NaN());
  Floats beside = product(device, w, device.put(spoiled), kFew);
  beside.resize(static_cast<size_t>((kFew - 1) * kOutputs));
  expect_equal(named("matmul", dtype, kFew) + " beside a row of NaN", beside,
               Floats(found.begin(), found.begin() + (kFew - 1) * kOutputs));
}

Floats normed(Side& side, const Floats& x, const Floats& weight, int64_t dim) {
  const auto rows = static_cast<int64_t>(x.size()) / dim;
  float* y = side.out<float>(rows * dim);
  side.backend().norm({side.put(x), y, side.put(weight), nullptr, dim, dim, rows, 1, dim, 1e-5f},
                      side.stream());
  return side.get("norm", y, rows * dim);
}

// Half of the relative error of the sum of squares comes through the root; then root, reciprocal, two
// products.
void test_norm(Side& device, Side& cpu) {
  for (const int64_t dim : {int64_t{200}, int64_t{1500}}) {  // a warp, and a block per row
    const Floats x = numbers(3, 3 * dim), weight = numbers(4, dim);
    const Floats found = normed(device, x, weight, dim), expected = normed(cpu, x, weight, dim);
    const auto n = static_cast<double>(dim);
    const double roundings = std::ceil(n / 32) + std::ceil(std::log2(n)) + std::ceil(n / 16) + 10;
    for (size_t i = 0; i < expected.size(); ++i) {
      const double bound = (roundings / 2 + 8) * kUnit * std::fabs(double{expected[i]}) + 1e-35;
      expect_near("norm of " + std::to_string(dim), static_cast<int64_t>(i), double{found[i]},
                  double{expected[i]}, bound);
    }
  }
}

struct Top {
  std::vector<int32_t> token;
  Floats logit, log_sum_exp;
};

// Which target ids each row may choose, and which target id each head row is.
struct Masks {
  int64_t words_each;
  std::vector<uint32_t> words;
  std::vector<int32_t> index, id_map;

  Masks(int64_t rows, int64_t vocab) : words_each(mask_words(vocab)) {
    words.assign(static_cast<size_t>(words_each), 0xAAAAAAAAu);
    words.insert(words.end(), words.size(), 0x08040201u);
    for (int32_t row = 0; row < rows; ++row) index.push_back(1 - row % 3);  // the last one may choose all
    for (auto id = static_cast<int32_t>(vocab); id > 0; --id) id_map.push_back(id - 1);
  }
  bool allows(int64_t row, int32_t head_row) const {
    const int32_t mask = index[static_cast<size_t>(row)], id = id_map[static_cast<size_t>(head_row)];
    return mask < 0 || (words[static_cast<size_t>(mask * words_each + id / 32)] >> (id % 32) & 1) != 0;
  }
};

Top top_of(Side& side, const Floats& z, const Matrix& head, int64_t top, const Masks* masks) {
  const int64_t rows = static_cast<int64_t>(z.size()) / head.cols;
  int32_t* token = side.out<int32_t>(rows * top);
  float *logit = side.out<float>(rows * top), *sum = side.out<float>(rows);
  float* scratch = side.out<float>(rows * head_top_scratch(head.rows));
  HeadTopParams p{side.put(z), head, rows, top, token, logit, sum, scratch};
  if (masks != nullptr) {
    p.mask = side.put(masks->words), p.mask_index = side.put(masks->index);
    p.mask_words = masks->words_each, p.id_map = side.put(masks->id_map);
  }
  side.backend().head_top(p, side.stream());
  return {side.get("head_top", token, rows * top), side.get("head_top", logit, rows * top),
          side.get("head_top", sum, rows)};
}

// Logits that are closer to each other than their bounds may change places.
void test_head(Side& device, Side& cpu, DType dtype, bool masked) {
  constexpr int64_t kRows = 3, kTop = 8, kVocab = 300, kTerms = 64;
  const Masks some(kRows, kVocab);
  const Masks* masks = masked ? &some : nullptr;
  const Floats weights = numbers(5, kVocab * kTerms, dtype), z = numbers(6, kRows * kTerms, dtype);
  const Matrix head = cpu.matrix(weights, kVocab, dtype);
  const Floats logits = product(cpu, head, cpu.put(z), kRows);
  const Top expected = top_of(cpu, z, head, kTop, masks);
  const Top found = top_of(device, z, device.matrix(weights, kVocab, dtype), kTop, masks);
  const std::string name = named(masked ? "masked head_top" : "head_top", dtype, kRows);
  double largest = 0;
  for (int64_t i = 0; i < kRows * kTop; ++i) {
    const auto at = static_cast<size_t>(i);
    const int32_t token = found.token[at];
    REDRAFTER_REQUIRE(token >= 0 && token < kVocab &&
                          std::count(&found.token[at - at % kTop], &found.token[at], token) == 0,
                      "SELF_TEST_FAILED", name, ": id ", i, " is ", token);
    const double bound = product_bound(kTerms) * magnitude(z, i / kTop, weights, token, kTerms);
    REDRAFTER_REQUIRE(!masked || some.allows(i / kTop, token), "SELF_TEST_FAILED", name, ": id ", i, " is ",
                      token, ", which no bit allows");
    largest = std::max(largest, bound);
    expect_near(name + " (its logits)", i, double{found.logit[at]},
                double{logits[static_cast<size_t>(i / kTop * kVocab + token)]}, bound);
    expect_near(name + " (their order)", i, double{found.logit[at]}, double{expected.logit[at]}, 2 * bound);
  }
  for (size_t row = 0; row < kRows; ++row) {
    const double sum = double{expected.log_sum_exp[row]};
    const double bound = 4 * largest + 4 * kExp + 200 * kUnit * (1 + std::fabs(sum));
    expect_near(name + " (log-sum-exp)", static_cast<int64_t>(row), double{found.log_sum_exp[row]}, sum,
                bound);
  }
}

std::vector<int32_t> sampled(Side& side, const Floats& logits, const std::vector<SampleSpec>& specs,
                             const std::vector<int32_t>& positions, int64_t vocab, const Masks* masks) {
  const auto rows = static_cast<int64_t>(specs.size());
  int32_t* token = side.out<int32_t>(rows);
  SampleParams p{side.put(logits),
                 side.put(specs),
                 side.put(positions),
                 token,
                 side.out<uint8_t>(sample_scratch(vocab)),
                 rows,
                 vocab};
  if (masks != nullptr) p.mask = side.put(masks->words), p.mask_index = side.put(masks->index);
  side.backend().sample(p, side.stream());
  return side.get("sample", token, rows);
}

// Greedy with a tie, which goes to the lowest id, and draws that lie far from a border.
void test_sample(Side& device, Side& cpu) {
  constexpr int64_t kVocab = 1000;
  const std::vector<SampleSpec> specs = {{},
                                         {1.0f, 0, 1.0f, 0.0f, 11},
                                         {0.7f, 40, 1.0f, 0.0f, 12},
                                         {1.3f, 0, 0.9f, 0.0f, 13},
                                         {0.9f, 100, 0.95f, 0.05f, 14}};
  const std::vector<int32_t> positions = {5, 6, 7, 8, 9};
  Floats logits = numbers(7, kVocab * static_cast<int64_t>(specs.size()));
  for (float& logit : logits) logit *= 6.0f;
  logits[300] = logits[700] = 7.0f;
  expect_equal("sample", sampled(device, logits, specs, positions, kVocab, nullptr),
               sampled(cpu, logits, specs, positions, kVocab, nullptr));
  const Masks masks(static_cast<int64_t>(specs.size()), kVocab);
  expect_equal("masked sample", sampled(device, logits, specs, positions, kVocab, &masks),
               sampled(cpu, logits, specs, positions, kVocab, &masks));
}

// As rounds run: the host's numbers come and go by copies that nobody waits for, and what is between them is
// a graph from the second time on.
void test_graph(Side& device, DType dtype) {
  constexpr int64_t kRows = 4, kDim = 96, kOutputs = 80;
  const Backend& backend = device.backend();
  Stream& stream = device.stream();
  const Matrix w = device.matrix(numbers(8, kOutputs * kDim, dtype), kOutputs, dtype);
  float *x = device.out<float>(kRows * kDim), *normal = device.out<float>(kRows * kDim);
  float* y = device.out<float>(kRows * kOutputs);
  const float* weight = device.put(numbers(9, kDim));
  const HostBuffer in(backend, kRows * kDim * sizeof(float)), out(backend, kRows * kOutputs * sizeof(float));
  const auto enqueue = [&] {
    backend.norm({x, normal, weight, nullptr, kDim, kDim, kRows, 1, kDim, 1e-5f}, stream);
    backend.matmul({normal, w, nullptr, nullptr, y, kRows, kDim, kOutputs}, stream);
  };
  const auto round = [&](uint64_t seed, void* graph) {
    const Floats input = numbers(seed, kRows * kDim);
    std::memcpy(in.data(), input.data(), input.size() * sizeof(float));
    backend.upload_later(x, in.data(), input.size() * sizeof(float), stream);
    graph == nullptr ? enqueue() : backend.launch_graph(graph, stream);
    backend.download_later(out.data(), y, kRows * kOutputs * sizeof(float), stream);
    backend.wait(stream);
    const auto* result = static_cast<const float*>(out.data());
    return Floats(result, result + kRows * kOutputs);
  };
  const Floats first = round(10, nullptr), second = round(11, nullptr);
  backend.begin_capture(stream);
  enqueue();
  void* graph = backend.end_capture(stream);
  const Floats again = round(10, graph), other = round(11, graph);
  backend.release_graph(graph);
  expect_equal("a graph", again, first);
  expect_equal("a graph, launched again", other, second);
}

}  // namespace

Reason self_test(const Backend& backend) {
  try {
    const Backend& plain = find_backend("cpu:oracle");
    for (const DType dtype : {DType::kBF16, DType::kF16}) {
      Side device(backend), cpu(plain);
      test_matmul(device, cpu, dtype);
      test_attention(device, cpu, dtype);
      test_head(device, cpu, dtype, false);
      test_head(device, cpu, dtype, true);
      test_graph(device, dtype);
      device.expect_clean();
    }
    Side device(backend), cpu(plain);
    test_norm(device, cpu);
    test_sample(device, cpu);
    device.expect_clean();
    return {};
  } catch (const std::exception&) {
    const Error error = caught_error();
    const bool memory = std::strcmp(error.code(), "ERR_OOM") == 0;
    return {memory ? "TOO_LITTLE_MEMORY" : "SELF_TEST_FAILED", error.what()};
  }
}

}  // namespace redrafter
