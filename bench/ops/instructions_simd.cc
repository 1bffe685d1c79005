#include "base/simd.h"
#include "instructions.h"

namespace redrafter::REDRAFTER_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kChains = 16;
#elif defined(__AVX2__)
constexpr int kChains = 6;
#else
constexpr int kChains = 4;
#endif

float sum(const F16* acc, int count) {
  alignas(64) float lanes[kLanes];
  float total = 0.0f;
  for (int i = 0; i < count; ++i) {
    f16_store(lanes, acc[i]);
    for (const float lane : lanes) total += lane;
  }
  return total;
}

float read_memory(const char* data, int64_t bytes) {
  constexpr int64_t kAhead = 4096, kRun = 64 << 10, kLine = 64;
  F16 acc[2] = {f16_zero(), f16_zero()};
  for (int64_t at = 0; at + 2 * kLine <= bytes;) {
    const int64_t left = (bytes - at) / 2 / kLine * kLine, run = left < kRun ? left : kRun;
    for (int64_t i = 0; i < run; i += kLine) {
      for (int s = 0; s < 2; ++s) {
        const char* from = data + at + s * run + i;
        f16_prefetch(from + kAhead);
        acc[s] = f16_add(acc[s], f16_load(reinterpret_cast<const float*>(from)));
      }
    }
    at += 2 * run;
  }
  return sum(acc, 2);
}

float multiply_add(int64_t count) {
  F16 acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = f16_set(static_cast<float>(i));
  const F16 a = f16_set(static_cast<float>(count & 1)), b = f16_set(0.5f);
  for (int64_t i = 0; i < count; i += kChains) {
    for (int c = 0; c < kChains; ++c) acc[c] = f16_fma(a, b, acc[c]);
  }
  return sum(acc, kChains);
}

}  // namespace

extern const bench::Instructions kInstructions{read_memory, multiply_add};

}  // namespace redrafter::REDRAFTER_ISA
