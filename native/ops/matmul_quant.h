// Products with quantised matrices (base/quant.h), CPU only.
//
// A row of x is quantised, too, in groups of 32, the last one filled up with zeros: d = largest magnitude /
// 127 in fp32, q = x * (127 / largest magnitude) to nearest, ties to even. A group whose magnitudes are all
// below 2^-100 is zero; one with an element that is not finite has a d of NaN, which makes its row of y NaN.
//   y[m, n] = sum over groups, ascending from 0, each added as fma(s, d_w * d_x, sum), where s is the sum of
//   the 32 products q_w q_x, an integer; then bias, then residual.
// d_w * d_x is rounded once. Integers are exact in any order, and the rest is one chain per output: so a row
// has the same bits in every launch, and on every level, `base` included.
//
// CPU layout of a quantised Matrix: panels of 16 rows (padded with zeros), each its scales and then its
// groups. Scales: f16 [group, 16], filled up to a multiple of 64 bytes. A group of q8_0 is 512 bytes: weight
// k of row n at k / 4 * 64 + n * 4 + k % 4, as q + 128; of q4_0 256 bytes: weights k and k + 16 in the low
// and high four bits at k / 4 * 64 + n * 4 + k % 4.
#pragma once

#include "base/quant.h"
#include "base/tensor.h"
#include "ops/matmul.h"

namespace redrafter {

// A group of a row of x.
struct QuantGroup {
  int8_t q[kGroup];
  float scale;
  int32_t start;  // of a sum of products: what it is too large by where weights are multiplied with an offset
};

// Groups that `rows` rows of x become. Fast levels need room for them; see MatmulParams. There, group g of
// row r is the one at g * rows + r.
constexpr int64_t quant_room(int64_t rows, int64_t cols) { return rows * groups_of(cols); }

constexpr float kLeastMagnitude = 0x1p-100f;  // of a group of x that is not zero

constexpr int64_t panel_scale_bytes(int64_t cols) { return ceil_to(groups_of(cols) * kPanelRows * 2, 64); }
constexpr int64_t panel_group_bytes(DType dtype) { return dtype == DType::kQ8_0 ? 512 : 256; }
constexpr int64_t quant_panel_bytes(DType dtype, int64_t cols) {
  return panel_scale_bytes(cols) + groups_of(cols) * panel_group_bytes(dtype);
}
constexpr int64_t quant_matrix_bytes(int64_t rows, int64_t cols, DType dtype) {
  return ceil_to(rows, kPanelRows) / kPanelRows * quant_panel_bytes(dtype, cols);
}

// The scale of row n in group g, and weight k of it as an integer.
float quant_scale(const Matrix& w, int64_t n, int64_t g);
int32_t quant_weight(const Matrix& w, int64_t n, int64_t k);

// Row n times x: the oracle of every product.
float quant_dot(const Matrix& w, int64_t n, const float* x);

// to[0 .. w.cols) = row n, exact.
void quant_gather(const Matrix& w, int64_t n, float* to);

void matmul_pack_quant(const PackParams&);

}  // namespace redrafter
