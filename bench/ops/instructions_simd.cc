#include "base/simd.h"
#include "instructions.h"
#include "ops/lanes_simd.h"

namespace redrafter::REDRAFTER_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kChains = 16, kRows = 8, kPanels = 2;
#elif defined(__AVX2__)
constexpr int kChains = 6, kRows = 4, kPanels = 1;
#else
constexpr int kChains = 4, kRows = 4, kPanels = 1;
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

template <bool kBytes>
float add_products(int64_t count) {
  constexpr int kSteps = 8;  // of different operands, so that nothing can be done once for all of them
  alignas(64) uint8_t w[kSteps][kPanels][64];
  int8_t x[kSteps][kRows][4];
  std::memset(w, 1, sizeof w);
  std::memset(x, static_cast<int>(count & 1), sizeof x);
  I16 acc[kRows][kPanels];
  for (auto& row : acc) {
    for (I16& each : row) each = i16_set(0);
  }
  int step = 0;
  for (int64_t i = 0; i < count; i += kRows * kPanels, step = (step + 1) % kSteps) {
    B64 bytes[kPanels];
    for (int p = 0; p < kPanels; ++p) bytes[p] = b64_load(w[step][p]);
    for (int r = 0; r < kRows; ++r) {
      for (int p = 0; p < kPanels; ++p) {
        I16& each = acc[r][p];
        each = kBytes ? dot_bytes(each, bytes[p], x[step][r]) : dot_nibbles(each, bytes[p], x[step][r]);
      }
    }
  }
  F16 total[2] = {f16_zero(), f16_zero()};
  for (const auto& row : acc) {
    for (const I16& each : row) total[0] = f16_add(total[0], f16_from(each));
  }
  return sum(total, 1);
}

}  // namespace

extern const bench::Instructions kInstructions{read_memory, multiply_add, add_products<true>,
                                               add_products<false>};

}  // namespace redrafter::REDRAFTER_ISA
