#include "model/rope_table.h"

#include <algorithm>
#include <cmath>

namespace redrafter {
namespace {

constexpr double kTwoPi = 6.283185307179586;

// Long wavelengths are divided by the factor, short ones kept, with a linear blend between.
double llama3(const RopeConfig& rope, double frequency) {
  const double wavelength = kTwoPi / frequency;
  const double original = static_cast<double>(rope.original_max_positions);
  if (wavelength > original / rope.low_freq_factor) return frequency / rope.factor;
  if (wavelength < original / rope.high_freq_factor) return frequency;
  const double blend =
      (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - blend) * frequency / rope.factor + blend * frequency;
}

// YaRN (arXiv 2309.00071): interpolate dimensions that turn less than beta_slow times over the original
// context, keep those that turn more than beta_fast times, ramp between.
struct YarnRamp {
  double low, high;

  YarnRamp(const RopeConfig& rope, int64_t head_dim) {
    const double d = static_cast<double>(head_dim);
    const auto dimension = [&](double turns) {
      return d * std::log(static_cast<double>(rope.original_max_positions) / (turns * kTwoPi)) /
             (2.0 * std::log(rope.theta));
    };
    low = dimension(rope.beta_fast);
    high = dimension(rope.beta_slow);
    if (rope.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, d - 1.0);
    if (low == high) high += 0.001;
  }
  double operator()(int64_t i) const {
    return std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
  }
};

double yarn_scale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double attention_factor(const RopeConfig& rope) {
  if (rope.scaling != RopeScaling::kYarn) return 1.0;
  if (rope.attention_factor > 0.0) return rope.attention_factor;
  if (rope.mscale > 0.0 && rope.mscale_all_dim > 0.0) {
    return yarn_scale(rope.factor, rope.mscale) / yarn_scale(rope.factor, rope.mscale_all_dim);
  }
  return yarn_scale(rope.factor, 1.0);
}

float inverse_frequency(const RopeConfig& rope, int64_t head_dim, int64_t i) {
  const double base = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
  switch (rope.scaling) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      return static_cast<float>(base / rope.factor);
    case RopeScaling::kLlama3:
      return static_cast<float>(llama3(rope, base));
    case RopeScaling::kYarn: {
      const double ramp = YarnRamp(rope, head_dim)(i);
      return static_cast<float>(base / rope.factor * ramp + base * (1.0 - ramp));
    }
  }
  return static_cast<float>(base);
}

}  // namespace

std::vector<float> rope_table(const RopeConfig& rope, int64_t head_dim, int64_t positions) {
  const int64_t half = head_dim / 2;
  const double scale = attention_factor(rope);
  std::vector<float> table(static_cast<size_t>(positions * half * 2));
  for (int64_t i = 0; i < half; ++i) {
    const float frequency = inverse_frequency(rope, head_dim, i);
    for (int64_t position = 0; position < positions; ++position) {
      const float angle = static_cast<float>(position) * frequency;
      float* pair = table.data() + (position * half + i) * 2;
      pair[0] = static_cast<float>(std::cos(static_cast<double>(angle)) * scale);
      pair[1] = static_cast<float>(std::sin(static_cast<double>(angle)) * scale);
    }
  }
  return table;
}

}  // namespace redrafter
