// Rows of a Matrix in the CPU layout, read back as fp32. Shared by the ops that look tokens up in a table.
#pragma once

#include "base/tensor.h"
#include "ops/matmul_quant.h"

namespace redrafter {

template <typename T, typename Convert>
static inline void gather_elements(const Matrix& table, int64_t n, float* to, const Convert& convert) {
  const T* at =
      static_cast<const T*>(table.data) + (n / kPanelRows) * table.cols * kPanelRows + n % kPanelRows;
  for (int64_t k = 0; k < table.cols; ++k) to[k] = convert(at[k * kPanelRows]);
}

// to[0 .. table.cols) = row n of the table.
static inline void gather_row(const Matrix& table, int64_t n, float* to) {
  switch (table.dtype) {
    case DType::kQ8_0:
    case DType::kQ4_0:
      return quant_gather(table, n, to);
    case DType::kF32:
      return gather_elements<float>(table, n, to, [](float v) { return v; });
    case DType::kF16:
      return gather_elements<uint16_t>(table, n, to, [](uint16_t v) { return f16_to_f32(v); });
    default:
      return gather_elements<uint16_t>(table, n, to, [](uint16_t v) { return bf16_to_f32(v); });
  }
}

}  // namespace redrafter
