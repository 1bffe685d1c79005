// The shapes kernels are measured at, and what each kernel has to move and compute there. Bytes are the least
// possible: every input read once, every output written once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/quant.h"

namespace redrafter::lab {

struct ModelShape {
  const char* name;
  int64_t hidden, ffn, heads, kv_heads, head_dim, vocab, layers;
  int64_t context = 512;         // committed tokens of a request in measurements of whole steps and rounds
  int64_t kv_element_bytes = 2;  // the CPU's cache has 4
  DType dtype = DType::kBF16;    // of weights
  int64_t qkv() const { return (heads + 2 * kv_heads) * head_dim; }
};

inline const std::vector<ModelShape>& model_shapes() {
  static const std::vector<ModelShape> shapes = {
      {"Llama-3.1-8B", 4096, 14336, 32, 8, 128, 128256, 32},
      {"Vicuna-7B", 4096, 11008, 32, 32, 128, 32000, 32},
      {"Llama-3.2-1B", 2048, 8192, 32, 8, 64, 128256, 16},
  };
  return shapes;
}

// For the emulator and compute-sanitizer, under which real shapes take hours.
inline const ModelShape kTinyShape{"tiny", 64, 160, 4, 2, 24, 300, 2, 48};

// For the CPU: the bundled model widened five times, with the vocabulary of larger ones.
inline const ModelShape kSmallShape{"small", 1280, 3840, 20, 10, 64, 32000, 8, 64};

// Those with `name` in their name; all real ones if it is empty.
inline std::vector<ModelShape> shapes_named(const std::string& name) {
  std::vector<ModelShape> found;
  for (const ModelShape& m : model_shapes()) {
    if (std::string(m.name).find(name) != std::string::npos) found.push_back(m);
  }
  for (const ModelShape& m : {kTinyShape, kSmallShape}) {
    if (name == m.name) found.push_back(m);
  }
  return found;
}

// The drafter of the measurements: GRU cell, projection to the target's width, one residual block, 32,000
// rows of head.
constexpr int64_t kDraftVocab = 32000;
constexpr int64_t kBeamWidth = 8, kBeamLength = 4;

// What an H100 SXM has by its data sheet; a run on a device replaces the bandwidth by what copying measured.
constexpr double kPeakBytesPerSecond = 3.35e12;
constexpr double kPeakFlopsPerSecond = 989e12;

struct Cost {
  double bytes = 0;
  double flops = 0;
  double floor_us(double bytes_per_second) const {
    const double memory = bytes / bytes_per_second, compute = flops / kPeakFlopsPerSecond;
    return 1e6 * (memory > compute ? memory : compute);
  }
};

inline double count(int64_t n) { return static_cast<double>(n); }

inline double weight_bytes(DType dtype, int64_t n, int64_t k) {
  return count(n) * count(dtype_row_bytes(dtype, k));
}

// Activations are fp32.
inline Cost matmul_cost(DType dtype, int64_t rows, int64_t n, int64_t k, bool residual) {
  return {weight_bytes(dtype, n, k) + 4 * count(rows) * count(k + n * (residual ? 2 : 1)),
          2 * count(rows) * count(n) * count(k)};
}

// `context` committed positions, read once for all rows.
inline Cost attention_cost(const ModelShape& m, int64_t rows, int64_t context) {
  const double kv = 2 * count(m.kv_element_bytes) * count(context + rows) * count(m.kv_heads * m.head_dim);
  return {kv + 2 * 4 * count(rows * m.heads * m.head_dim),
          4 * count(rows) * count(context) * count(m.heads * m.head_dim)};
}

}  // namespace redrafter::lab
