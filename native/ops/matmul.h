// y[m, n] = sum_k x[m, k] * w[n, k] (+ bias[n]) (+ residual[m, n]), fp32 accumulation.
// Row invariance: one chain per output, k ascending from 0, fused multiply-add; then bias, then residual. The
// order is a function of K alone, so y[m] has the same bits whatever the other rows are and however many.
#pragma once
#include "base/tensor.h"

namespace redrafter {

struct MatmulParams {
  const float* x;         // [rows, w.cols], rows x_stride apart
  Matrix w;               // [N, K]
  const float* bias;      // [N] or null
  const float* residual;  // [rows, N], rows y_stride apart, or null; may be y
  float* y;               // [rows, N], rows y_stride apart; must not overlap x
  int64_t rows, x_stride, y_stride;
};

void matmul_cpu(const MatmulParams&, Stream&);  // oracle: plain loops
namespace isa_base {
void matmul(const MatmulParams&, Stream&);
}
namespace isa_neon {
void matmul(const MatmulParams&, Stream&);
}
namespace isa_avx2 {
void matmul(const MatmulParams&, Stream&);
}
namespace isa_avx512 {
void matmul(const MatmulParams&, Stream&);
}

// Packs rows [first_row, first_row + rows) of a row-major matrix into w. `source` has the dtype of w. The
// call that brings the last row also zeroes the padding.
struct PackParams {
  const void* source;  // [rows, w.cols], host memory, any alignment
  int64_t first_row, rows;
  Matrix w;
};

void matmul_pack_cpu(const PackParams&, Stream&);

}  // namespace redrafter
