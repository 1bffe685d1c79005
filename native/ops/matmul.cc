#include "ops/matmul.h"

#include <cmath>
#include <cstring>

#include "base/threads.h"
#include "ops/matmul_quant.h"

namespace redrafter {
namespace {

float element(const Matrix& w, int64_t n, int64_t k) {
  const int64_t at = (n / kPanelRows) * w.cols * kPanelRows + k * kPanelRows + n % kPanelRows;
  switch (w.dtype) {
    case DType::kF32:
      return static_cast<const float*>(w.data)[at];
    case DType::kF16:
      return f16_to_f32(static_cast<const uint16_t*>(w.data)[at]);
    default:
      return bf16_to_f32(static_cast<const uint16_t*>(w.data)[at]);
  }
}

template <typename T>
void pack(const PackParams& p) {
  T* data = static_cast<T*>(p.w.data);
  for (int64_t r = 0; r < p.rows; ++r) {
    const int64_t n = p.first_row + r;
    T* panel = data + (n / kPanelRows) * p.w.cols * kPanelRows + n % kPanelRows;
    const char* source = static_cast<const char*>(p.source) + r * p.w.cols * static_cast<int64_t>(sizeof(T));
    for (int64_t k = 0; k < p.w.cols; ++k)
      std::memcpy(panel + k * kPanelRows, source + k * sizeof(T), sizeof(T));
  }
  if (p.first_row + p.rows != p.w.rows) return;
  for (int64_t n = p.w.rows; n % kPanelRows != 0; ++n) {  // the padding of the last panel
    T* panel = data + (n / kPanelRows) * p.w.cols * kPanelRows + n % kPanelRows;
    for (int64_t k = 0; k < p.w.cols; ++k) panel[k * kPanelRows] = 0;
  }
}

}  // namespace

void matmul_cpu(const MatmulParams& p, Stream& stream) {
  const bool quantised = dtype_is_quantised(p.w.dtype);
  stream.threads->run(p.w.rows, p.rows * p.w.rows * p.w.cols, [&p, quantised](int64_t n, int) {
    for (int64_t m = 0; m < p.rows; ++m) {
      const float* x = p.x + m * p.x_stride;
      float sum = quantised ? quant_dot(p.w, n, x) : 0.0f;
      for (int64_t k = 0; !quantised && k < p.w.cols; ++k) sum = std::fma(element(p.w, n, k), x[k], sum);
      if (p.bias != nullptr) sum += p.bias[n];
      if (p.residual != nullptr) sum += p.residual[m * p.y_stride + n];
      p.y[m * p.y_stride + n] = sum;
    }
  });
}

void matmul_pack_cpu(const PackParams& p, Stream&) {
  if (dtype_is_quantised(p.w.dtype)) {
    matmul_pack_quant(p);
  } else if (dtype_bytes(p.w.dtype) == 4) {
    pack<uint32_t>(p);
  } else {
    pack<uint16_t>(p);
  }
}

}  // namespace redrafter
