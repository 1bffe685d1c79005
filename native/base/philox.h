// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"
// (SC 2011). A draw is a pure function of (seed, position), so it does not depend on how many tokens were
// drafted, how prompts were chunked or which requests shared a batch. The functions are constexpr for
// kernels' sake: nvcc compiles such functions for the device, too (--expt-relaxed-constexpr).
#pragma once

#include <array>
#include <cstdint>

namespace redrafter {

constexpr std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k = {k[0] + 0x9E3779B9u, k[1] + 0xBB67AE85u};
  }
  return c;
}

// What a draw is for; part of the counter, so that two purposes never share random bits.
enum class DrawPurpose : uint32_t { kToken = 0, kSlide = 1 };

// Uniform in [0, 1) with 53 random bits, for the token at absolute position `position` (0 = first token of
// the sequence) of choice `choice`.
constexpr double philox_uniform(uint64_t seed, uint64_t position, uint32_t choice, DrawPurpose purpose) {
  const auto r = philox4x32_10({static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32),
                                choice, static_cast<uint32_t>(purpose)},
                               {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t bits = (uint64_t{r[0]} << 32 | r[1]) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

}  // namespace redrafter
