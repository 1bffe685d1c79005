// y[m, n] = sum_k x[m, k] * w[n, k] (+ bias[n]) (+ residual[m, n]), fp32 accumulation.
// Row invariance: the order of summation is a function of the shape of w alone, so y[m] has the same bits
// whatever the other rows are and however many. A NaN or infinity in a row of x stays in that row of y.
// CPU: one chain per output, k ascending from 0, fused multiply-add; then bias, then residual. Quantised w:
// matmul_quant.h.
// CUDA: x is rounded to the dtype of w, to nearest; in f16 what rounds to more than 65504 becomes infinite. K
// is cut into tiles of 16 and those into matmul_splits(N, K) slices, slice s of S being tiles [s T / S, (s +
// 1) T / S). A slice is one chain of 16 x 8 x 16 matrix instructions from zero, tiles ascending. The sums of
// the slices are added in ascending order, ((p0 + p1) + p2) + ...; then bias, then residual.
#pragma once
#include "base/tensor.h"

namespace redrafter {

struct QuantGroup;  // ops/matmul_quant.h

struct MatmulParams {
  const float* x;         // [rows, w.cols], rows x_stride apart
  Matrix w;               // [N, K]
  const float* bias;      // [N] or null
  const float* residual;  // [rows, N], rows y_stride apart, or null; may be y
  float* y;               // [rows, N], rows y_stride apart; must not overlap x
  int64_t rows, x_stride, y_stride;
  QuantGroup* room = nullptr;  // [quant_room(rows, K)] where w is quantised
};

// Slices of K of a matrix of `rows` outputs: as few as give about one block of 256 outputs to each of 128
// multiprocessors, none shorter than 4 tiles. Neither the number of rows of x nor the device has a say.
constexpr int matmul_splits(int64_t rows, int64_t cols) {
  int splits = 1;
  while (splits < 8 && ceil_to(rows, 256) / 256 * splits < 128 && fragment_tiles(cols) >= 8 * splits)
    splits *= 2;
  return splits;
}

void matmul_cpu(const MatmulParams&, Stream&);  // oracle: plain loops
void matmul_cuda(const MatmulParams&, Stream&);
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
namespace isa_avx512vnni {
void matmul(const MatmulParams&, Stream&);
}

// Packs rows [first_row, first_row + rows) of a row-major matrix into w. `source` has the dtype of w. The
// call that brings the last row also zeroes the padding of N, every call that of K in its rows. The source
// may be read until the stream has been waited for; the host goes on meanwhile if it is memory of
// allocate_host.
struct PackParams {
  const void* source;  // [rows, w.cols] (rows of groups where quantised), host memory, any alignment
  int64_t first_row, rows;
  Matrix w;
};

void matmul_pack_cpu(const PackParams&, Stream&);
void matmul_pack_cuda(const PackParams&, Stream&);
constexpr int64_t kPackWorkspaceBytes = 32;  // the least that matmul_pack_cuda can do with

}  // namespace redrafter
