// Root-mean-square norm over the last axis: y = x / sqrt(mean(x^2) + eps) * weight.
// Each (row, group) vector is reduced in one fixed order: 16 interleaved partial sums, then a pairwise fold.
#pragma once
#include "base/tensor.h"

namespace redrafter {

struct NormParams {
  const float* x;         // [rows, groups, dim], rows x_stride apart
  float* y;               // [rows, groups, dim], rows y_stride apart; may be x
  const float* weight;    // [dim]
  const int32_t* gather;  // [rows] or null: row r reads x row gather[r]
  int64_t x_stride, y_stride;
  int64_t rows, groups, dim;
  float eps;
};

void norm_cpu(const NormParams&, Stream&);
void norm_cuda(const NormParams&, Stream&);

}  // namespace redrafter
