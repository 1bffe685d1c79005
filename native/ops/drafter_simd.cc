#include <limits>

#include "ops/drafter.h"
#include "ops/math_simd.h"
#include "ops/panel.h"
#include "ops/product_simd.h"
#include "ops/top.h"

namespace redrafter::REDRAFTER_ISA {
namespace {

// y = x W^T + bias for one run of panels.
REDRAFTER_INLINE void affine(const Operand& x, int64_t rows, const Matrix& w, const float* bias, float* y,
                             int64_t y_stride, int64_t first, int64_t count) {
  multiply(x, rows, w, first, count, [&](int64_t row, int64_t panel, F16 sum) {
    const int64_t n = panel * kLanes, valid = w.rows - n;
    if (bias != nullptr) sum = f16_add(sum, f16_load_n(bias + n, valid));
    f16_store_n(y + row * y_stride + n, sum, valid);
  });
}

void gru_gates(const CellParams& p, Stream& stream) {
  const int64_t h = p.hidden;
  stream.threads->run(p.rows, 8 * p.rows * h, [&p, h](int64_t row, int) {
    const float* gi = p.scratch + row * 6 * h;
    const float* gh = gi + 3 * h;
    for (int64_t i = 0; i < h; i += kLanes) {
      const int64_t n = h - i;
      const F16 r = f16_sigmoid(f16_add(f16_load_n(gi + i, n), f16_load_n(gh + i, n)));
      const F16 z = f16_sigmoid(f16_add(f16_load_n(gi + h + i, n), f16_load_n(gh + h + i, n)));
      const F16 c = f16_tanh(f16_fma(r, f16_load_n(gh + 2 * h + i, n), f16_load_n(gi + 2 * h + i, n)));
      // (1 - z) c + z s = c + z (s - c)
      const F16 s = f16_load_n(p.s + row * h + i, n);
      f16_store_n(p.s_next + row * h + i, f16_fma(z, f16_add(s, f16_mul(c, f16_set(-1.0f))), c), n);
    }
  });
}

}  // namespace

void cell(const CellParams& p, Stream& stream) {
  const int64_t h = p.hidden;
  // In scratch, a row has 3 hidden of W e + w_bias, 3 hidden of U s + u_bias; behind all rows, e of each.
  const float* e = p.e;
  if (e == nullptr) {
    float* looked_up = p.scratch + p.rows * 6 * h;
    for (int64_t row = 0; row < p.rows; ++row) {
      gather_row(p.table, p.token[row * p.token_stride],
                 p.folded() ? p.scratch + row * 6 * h : looked_up + row * h);
    }
    e = looked_up;
  }
  if (p.cell == Cell::kSum) {
    for (int64_t i = 0; i < p.rows * h; ++i) p.s_next[i] = p.s[i] + e[i];
    return;
  }
  const Operand of_e = p.folded() ? Operand{} : operand(p.w, e, h, p.rows, p.room, stream);
  QuantGroup* more = p.room == nullptr ? nullptr : p.room + quant_room(p.rows, h);
  const Operand of_s = operand(p.u, p.s, h, p.rows, more, stream);
  over_panels(p.u, 2 * p.rows, stream, [&](int64_t first, int64_t count) {
    if (!p.folded()) affine(of_e, p.rows, p.w, p.w_bias, p.scratch, 6 * h, first, count);
    if (p.cell == Cell::kGru) {
      affine(of_s, p.rows, p.u, p.u_bias, p.scratch + 3 * h, 6 * h, first, count);
      return;
    }
    multiply(of_s, p.rows, p.u, first, count, [&](int64_t row, int64_t panel, F16 sum) {
      const int64_t n = panel * kLanes, valid = h - n;
      sum = f16_add(sum, f16_load_n(p.scratch + row * 6 * h + n, valid));
      if (p.u_bias != nullptr) sum = f16_add(sum, f16_load_n(p.u_bias + n, valid));
      f16_store_n(p.s_next + row * h + n, f16_silu(sum), valid);
    });
  });
  if (p.cell == Cell::kGru) gru_gates(p, stream);
}

void mix(const MixParams& p, Stream& stream) {
  const int64_t h = p.hidden;
  float* joined = p.projection.data == nullptr ? p.z : p.scratch;
  for (int64_t row = 0; row < p.rows; ++row) {
    const int64_t lane = p.h_row == nullptr ? 0 : p.h_row[row / p.rows_per_lane];
    std::memcpy(joined + row * 2 * h, p.h + lane * h, static_cast<size_t>(h) * sizeof(float));
    std::memcpy(joined + row * 2 * h + h, p.s + row * h, static_cast<size_t>(h) * sizeof(float));
  }
  if (p.projection.data == nullptr) return;
  const Operand x = operand(p.projection, joined, 2 * h, p.rows, p.room, stream);
  over_panels(p.projection, p.rows, stream, [&](int64_t first, int64_t count) {
    affine(x, p.rows, p.projection, p.bias, p.z, p.exit, first, count);
  });
}

void residual(const ResidualParams& p, Stream& stream) {
  const Operand x = operand(p.a, p.z, p.exit, p.rows, p.room, stream);
  over_panels(p.a, p.rows, stream, [&](int64_t first, int64_t count) {
    multiply(x, p.rows, p.a, first, count, [&](int64_t row, int64_t panel, F16 sum) {
      const int64_t n = panel * kLanes, valid = p.exit - n;
      if (p.bias != nullptr) sum = f16_add(sum, f16_load_n(p.bias + n, valid));
      const F16 z = f16_load_n(p.z + row * p.exit + n, valid);
      f16_store_n(p.z_next + row * p.exit + n, f16_add(z, f16_silu(sum)), valid);
    });
  });
}

void head_top(const HeadTopParams& p, Stream& stream) {
  const int64_t vocab = p.head.rows;
  const Operand x = operand(p.head, p.z, p.head.cols, p.rows, p.room, stream);
  over_panels(p.head, p.rows, stream, [&](int64_t first, int64_t count) {
    affine(x, p.rows, p.head, nullptr, p.scratch, vocab, first, count);
  });
  stream.threads->run(p.rows, 4 * p.rows * vocab, [&p, vocab](int64_t row, int) {
    float* logits = p.scratch + row * vocab;
    const uint32_t* mask = mask_of(p, row);
    const auto replace = [&](float with) {
      for (int64_t i = 0; mask != nullptr && i < vocab; ++i) {
        if (!may_choose(p, mask, i)) logits[i] = with;
      }
    };
    replace(std::numeric_limits<float>::quiet_NaN());
    select_top(logits, vocab, p.top, p.token + row * p.top, p.logit + row * p.top);
    const float largest = p.logit[row * p.top];
    replace(-std::numeric_limits<float>::infinity());
    F16 sum = f16_zero();
    int64_t i = 0;
    for (; i + kLanes <= vocab; i += kLanes) {
      sum = f16_add(sum, f16_exp(f16_add(f16_load(logits + i), f16_set(-largest))));
    }
    float total = f16_fold(sum);
    for (; i < vocab; ++i) total += std::exp(logits[i] - largest);
    p.log_sum_exp[row] = largest + std::log(total);
  });
}

}  // namespace redrafter::REDRAFTER_ISA
