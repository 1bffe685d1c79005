#include "base/quant.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace redrafter {
namespace {

constexpr float kLargestHalf = 65520.0f;  // from here on, f16 rounds to infinity

// To nearest, halves away from zero, for magnitudes below 2^31: the difference is exact.
int32_t round_away(float value) {
  const auto whole = static_cast<int32_t>(value);
  const float rest = value - static_cast<float>(whole);
  return whole + static_cast<int32_t>(rest >= 0.5f) - static_cast<int32_t>(rest <= -0.5f);
}

// What a weight is multiplied by. Where the scale is so small that this would be infinite, f16 has 0 for it.
float reciprocal(float scale) {
  const float inverse = 1.0f / scale;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

void put_scale(float scale, uint8_t* out) {
  const uint16_t half = f32_to_f16(scale);
  std::memcpy(out, &half, sizeof half);
}

void quantise_8(const float* w, float largest, uint8_t* out) {
  const float scale = std::fabs(largest) / 127.0f, inverse = reciprocal(scale);
  put_scale(scale, out);
  for (int64_t i = 0; i < kGroup; ++i)
    out[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(round_away(w[i] * inverse)));
}

void quantise_4(const float* w, float largest, uint8_t* out) {
  const float scale = largest / -8.0f, inverse = reciprocal(scale);
  put_scale(scale, out);
  const auto nibble = [&](int64_t i) {
    return static_cast<uint8_t>(std::min(15, static_cast<int32_t>(w[i] * inverse + 8.5f)));
  };
  for (int64_t i = 0; i < kGroup / 2; ++i)
    out[2 + i] = static_cast<uint8_t>(nibble(i) | nibble(i + kGroup / 2) << 4);
}

}  // namespace

int64_t quantise_row(const float* weights, int64_t cols, DType to, uint8_t* out) {
  for (int64_t first = 0; first < cols; first += kGroup, out += group_bytes(to)) {
    float w[kGroup] = {};
    std::memcpy(w, weights + first, static_cast<size_t>(std::min(kGroup, cols - first)) * sizeof(float));
    int64_t most = 0;
    for (int64_t i = 0; i < kGroup; ++i) {
      if (!std::isfinite(w[i])) return first + i;
      if (std::fabs(w[i]) > std::fabs(w[most])) most = i;
    }
    const float largest = w[most];
    if (std::fabs(largest) / (to == DType::kQ8_0 ? 127.0f : 8.0f) >= kLargestHalf) return first + most;
    if (to == DType::kQ8_0) {
      quantise_8(w, largest, out);
    } else {
      quantise_4(w, largest, out);
    }
  }
  return -1;
}

int64_t find_bad_group(const uint8_t* groups, int64_t count, DType dtype) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t scale;
    std::memcpy(&scale, groups + i * group_bytes(dtype), sizeof scale);
    if ((scale & 0x7c00u) == 0x7c00u) return i;
  }
  return -1;
}

}  // namespace redrafter
