#include "ops/drafter.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "base/threads.h"
#include "ops/panel.h"
#include "ops/top.h"

namespace redrafter {
namespace {

float weight(const Matrix& w, int64_t n, int64_t k) {
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

float dot(const Matrix& w, int64_t n, const float* x) {
  if (dtype_is_quantised(w.dtype)) return quant_dot(w, n, x);
  float sum = 0.0f;
  for (int64_t k = 0; k < w.cols; ++k) sum = std::fma(weight(w, n, k), x[k], sum);
  return sum;
}

float bias_at(const float* bias, int64_t n) { return bias == nullptr ? 0.0f : bias[n]; }
float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }
float silu(float x) { return x / (1.0f + std::exp(-x)); }

}  // namespace

void cell_cpu(const CellParams& p, Stream&) {
  const int64_t h = p.hidden;
  for (int64_t row = 0; row < p.rows; ++row) {
    const float *e = p.e == nullptr ? p.scratch : p.e + row * h, *s = p.s + row * h;
    float* out = p.s_next + row * h;
    if (p.e == nullptr) gather_row(p.table, p.token[row * p.token_stride], p.scratch);
    for (int64_t i = 0; i < h; ++i) {
      const auto input = [&](int64_t n) { return p.folded() ? e[n] : dot(p.w, n, e) + bias_at(p.w_bias, n); };
      const auto state = [&](int64_t n) { return dot(p.u, n, s) + bias_at(p.u_bias, n); };
      switch (p.cell) {
        case Cell::kSum:
          out[i] = s[i] + e[i];
          break;
        case Cell::kElman:
          out[i] = silu(input(i) + state(i));
          break;
        case Cell::kGru: {
          const float r = sigmoid(input(i) + state(i));
          const float z = sigmoid(input(h + i) + state(h + i));
          const float c = std::tanh(input(2 * h + i) + r * state(2 * h + i));
          out[i] = (1.0f - z) * c + z * s[i];
          break;
        }
      }
    }
  }
}

void mix_cpu(const MixParams& p, Stream&) {
  const int64_t h = p.hidden;
  for (int64_t row = 0; row < p.rows; ++row) {
    float* joined = (p.projection.data == nullptr ? p.z : p.scratch) + row * 2 * h;
    const int64_t lane = p.h_row == nullptr ? 0 : p.h_row[row / p.rows_per_lane];
    std::memcpy(joined, p.h + lane * h, static_cast<size_t>(h) * sizeof(float));
    std::memcpy(joined + h, p.s + row * h, static_cast<size_t>(h) * sizeof(float));
    if (p.projection.data == nullptr) continue;
    for (int64_t n = 0; n < p.exit; ++n)
      p.z[row * p.exit + n] = dot(p.projection, n, joined) + bias_at(p.bias, n);
  }
}

void residual_cpu(const ResidualParams& p, Stream&) {
  for (int64_t row = 0; row < p.rows; ++row) {
    const float* z = p.z + row * p.exit;
    for (int64_t n = 0; n < p.exit; ++n) {
      p.z_next[row * p.exit + n] = z[n] + silu(dot(p.a, n, z) + bias_at(p.bias, n));
    }
  }
}

void head_top_cpu(const HeadTopParams& p, Stream&) {
  const int64_t vocab = p.head.rows;
  for (int64_t row = 0; row < p.rows; ++row) {
    float* logits = p.scratch + row * vocab;
    for (int64_t n = 0; n < vocab; ++n) logits[n] = dot(p.head, n, p.z + row * p.head.cols);
    const uint32_t* mask = mask_of(p, row);
    for (int64_t n = 0; n < vocab; ++n) {
      if (!may_choose(p, mask, n)) logits[n] = std::numeric_limits<float>::quiet_NaN();
    }
    select_top(logits, vocab, p.top, p.token + row * p.top, p.logit + row * p.top);
    const float largest = p.logit[row * p.top];
    double sum = 0.0;
    for (int64_t n = 0; n < vocab; ++n) {
      if (may_choose(p, mask, n)) sum += std::exp(static_cast<double>(logits[n] - largest));
    }
    p.log_sum_exp[row] = largest + static_cast<float>(std::log(sum));
  }
}

}  // namespace redrafter
