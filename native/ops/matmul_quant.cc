#include "ops/matmul_quant.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace redrafter {
namespace {

uint8_t* panel_of(const Matrix& w, int64_t n) {
  return static_cast<uint8_t*>(w.data) + n / kPanelRows * quant_panel_bytes(w.dtype, w.cols);
}

// The byte of a group of a panel with weight k of row n in it.
int64_t byte_at(DType dtype, int64_t n, int64_t k) {
  const int64_t within = dtype == DType::kQ8_0 ? k : k % (kGroup / 2);
  return within / 4 * 64 + n % kPanelRows * 4 + within % 4;
}

uint8_t* group_of(const Matrix& w, int64_t n, int64_t g) {
  return panel_of(w, n) + panel_scale_bytes(w.cols) + g * panel_group_bytes(w.dtype);
}

QuantGroup quantise(const float* x, int64_t count) {
  QuantGroup group{};
  float largest = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(x[i])) {
      group.scale = std::numeric_limits<float>::quiet_NaN();
      return group;
    }
    largest = std::max(largest, std::fabs(x[i]));
  }
  if (largest < kLeastMagnitude) return group;
  group.scale = largest / 127.0f;
  const float inverse = 127.0f / largest;
  for (int64_t i = 0; i < count; ++i) group.q[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
  return group;
}

// Row n gets the groups of `source`; null: zeros.
void pack_row(const Matrix& w, int64_t n, const uint8_t* source) {
  const bool wide = w.dtype == DType::kQ8_0;
  for (int64_t g = 0; g < groups_of(w.cols); ++g) {
    const uint8_t* from = source == nullptr ? nullptr : source + g * group_bytes(w.dtype);
    const int64_t at = (g * kPanelRows + n % kPanelRows) * 2;
    if (from == nullptr) {
      std::memset(panel_of(w, n) + at, 0, 2);
    } else {
      std::memcpy(panel_of(w, n) + at, from, 2);
    }
    uint8_t* to = group_of(w, n, g) + n % kPanelRows * 4;
    for (int64_t i = 0; i < (wide ? kGroup : kGroup / 2); i += 4) {
      uint32_t four = wide ? 0 : 0x88888888u;  // zeros
      if (from != nullptr) std::memcpy(&four, from + 2 + i, 4);
      if (wide) four ^= 0x80808080u;
      std::memcpy(to + i / 4 * 64, &four, 4);
    }
  }
}

}  // namespace

float quant_scale(const Matrix& w, int64_t n, int64_t g) {
  uint16_t half;
  std::memcpy(&half, panel_of(w, n) + (g * kPanelRows + n % kPanelRows) * 2, sizeof half);
  return f16_to_f32(half);
}

int32_t quant_weight(const Matrix& w, int64_t n, int64_t k) {
  const uint8_t byte = group_of(w, n, k / kGroup)[byte_at(w.dtype, n, k % kGroup)];
  if (w.dtype == DType::kQ8_0) return byte - 128;
  return (k % kGroup < kGroup / 2 ? byte & 15 : byte >> 4) - 8;
}

float quant_dot(const Matrix& w, int64_t n, const float* x) {
  float sum = 0.0f;
  for (int64_t g = 0; g < groups_of(w.cols); ++g) {
    const int64_t first = g * kGroup, count = std::min(kGroup, w.cols - first);
    const QuantGroup group = quantise(x + first, count);
    int32_t products = 0;
    for (int64_t i = 0; i < count; ++i) products += quant_weight(w, n, first + i) * group.q[i];
    sum = std::fma(static_cast<float>(products), quant_scale(w, n, g) * group.scale, sum);
  }
  return sum;
}

void quant_gather(const Matrix& w, int64_t n, float* to) {
  for (int64_t first = 0; first < w.cols; first += kGroup) {
    const float scale = quant_scale(w, n, first / kGroup);
    for (int64_t k = first; k < std::min(first + kGroup, w.cols); ++k)
      to[k] = scale * static_cast<float>(quant_weight(w, n, k));
  }
}

void matmul_pack_quant(const PackParams& p) {
  const auto* source = static_cast<const uint8_t*>(p.source);
  for (int64_t r = 0; r < p.rows; ++r)
    pack_row(p.w, p.first_row + r, source + r * dtype_row_bytes(p.w.dtype, p.w.cols));
  if (p.first_row + p.rows != p.w.rows) return;
  for (int64_t n = p.w.rows; n % kPanelRows != 0; ++n) pack_row(p.w, n, nullptr);
  for (int64_t n = 0; n < p.w.rows; n += kPanelRows) {  // behind the scales
    const int64_t used = groups_of(p.w.cols) * kPanelRows * 2;
    std::memset(panel_of(p.w, n) + used, 0, static_cast<size_t>(panel_scale_bytes(p.w.cols) - used));
  }
}

}  // namespace redrafter
