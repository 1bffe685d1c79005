// Root-mean-square norm over the last axis: y = x / sqrt(mean(x^2) + eps) * weight.
// Each (row, group) vector is reduced in one fixed order.
// CPU: 16 interleaved partial sums, then a pairwise fold.
// CUDA: element i belongs to thread i / 4 % T, T being 32 for dim up to 1024 and 256 above. A thread adds its
// squares in ascending order with fused multiply-adds; the 32 sums of a warp are folded as a butterfly (over
// distances 16, 8, 4, 2, 1), those of warps are added in ascending order. How x, y and weight are aligned
// changes nothing.
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
