#include "base/dtype.h"

#include <cmath>

namespace redrafter {
namespace {

struct Single {
  using Store = float;
  static float widen(float v) { return v; }
  static float narrow(float v) { return v; }
};
struct Half {
  using Store = uint16_t;
  static float widen(uint16_t v) { return f16_to_f32(v); }
  static uint16_t narrow(float v) { return f32_to_f16(v); }
};
struct Brain {
  using Store = uint16_t;
  static float widen(uint16_t v) { return bf16_to_f32(v); }
  static uint16_t narrow(float v) { return f32_to_bf16(v); }
};

template <typename From, typename To>
int64_t convert(const void* source, void* target, int64_t count) {
  const auto* in = static_cast<const uint8_t*>(source);
  auto* out = static_cast<uint8_t*>(target);
  int64_t overflow = -1;
  for (int64_t i = 0; i < count; ++i) {
    typename From::Store stored;
    std::memcpy(&stored, in + i * static_cast<int64_t>(sizeof stored), sizeof stored);
    const float value = From::widen(stored);
    const typename To::Store result = To::narrow(value);
    std::memcpy(out + i * static_cast<int64_t>(sizeof result), &result, sizeof result);
    if (overflow < 0 && std::isinf(To::widen(result)) && !std::isinf(value)) overflow = i;
  }
  return overflow;
}

template <typename From>
int64_t convert_from(const void* source, void* target, DType to, int64_t count) {
  switch (to) {
    case DType::kF16:
      return convert<From, Half>(source, target, count);
    case DType::kBF16:
      return convert<From, Brain>(source, target, count);
    default:
      return convert<From, Single>(source, target, count);
  }
}

}  // namespace

int64_t convert_elements(const void* source, DType from, void* target, DType to, int64_t count) {
  switch (from) {
    case DType::kF16:
      return convert_from<Half>(source, target, to, count);
    case DType::kBF16:
      return convert_from<Brain>(source, target, to, count);
    default:
      return convert_from<Single>(source, target, to, count);
  }
}

}  // namespace redrafter
