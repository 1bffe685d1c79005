// Rows of x times panels of 16 outputs of a quantised Matrix: the chain stated in matmul_quant.h. Included by
// *_simd.cc only. Blocks and tiles are those of panel_simd.h; integers of a group are in registers, and the
// fp32 sums, to which each group adds once, in memory.
#pragma once

#include <utility>

#include "ops/lanes_simd.h"
#include "ops/matmul_quant.h"
#include "ops/panel_simd.h"

namespace redrafter::REDRAFTER_ISA {

// As kTilePanels. Several panels side by side share what is loaded of x, which with many rows would be the
// limit; with few rows memory is, and it is read fastest from front to back.
#if defined(__AVX512F__)
constexpr int kQuantRows = 12;
constexpr int kQuantPanels[kQuantRows] = {1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2};
#else
constexpr int kQuantRows = 4;
constexpr int kQuantPanels[kQuantRows] = {1, 1, 1, 1};
#endif
static_assert(kQuantPanels[kQuantRows / 2 - 1] == kQuantPanels[kQuantRows - 1]);  // of all tiles of more rows
constexpr int kQuantBlockBytes = 24576;  // of a panel in a block: all of it, of up to 1536 columns of q8_0

namespace {

// The bits of the largest magnitude of a group: they are in the order of the magnitudes, NaN above all.
REDRAFTER_INLINE int32_t largest_bits(const float* x) {
#if defined(__AVX512F__)
  const __m512i a = _mm512_loadu_si512(x), b = _mm512_loadu_si512(x + kLanes);
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  return _mm512_reduce_max_epi32(
      _mm512_max_epi32(_mm512_and_si512(a, magnitude), _mm512_and_si512(b, magnitude)));
#else
  int32_t bits[kGroup], most = 0;
  std::memcpy(bits, x, sizeof bits);
  for (int i = 0; i < kGroup; ++i) {
    const int32_t magnitude = bits[i] & 0x7fffffff;
    most = magnitude > most ? magnitude : most;
  }
  return most;
#endif
}

// q = x * inverse to nearest, ties to even. Returns the sum of q.
REDRAFTER_INLINE int32_t round_group(const float* x, float inverse, int8_t* q) {
#if defined(__AVX512F__)
  const __m512 factor = _mm512_set1_ps(inverse);
  const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), factor));
  const __m512i b = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + kLanes), factor));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtepi32_epi8(a));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q + kLanes), _mm512_cvtepi32_epi8(b));
  return _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
#else
  // Added to a small number, 1.5 * 2^23 leaves its nearest integer in the low bits.
  constexpr float kRound = 12582912.0f;
  constexpr int32_t kRoundBits = 0x4b400000;
  float v[kGroup];
  int32_t bits[kGroup], sum = 0;
  for (int i = 0; i < kGroup; ++i) v[i] = x[i] * inverse + kRound;
  std::memcpy(bits, v, sizeof bits);
  for (int i = 0; i < kGroup; ++i) {
    bits[i] -= kRoundBits;
    sum += bits[i];
  }
  for (int i = 0; i < kGroup; ++i) q[i] = static_cast<int8_t>(bits[i]);
  return sum;
#endif
}

// A group of x with `count` elements, filled up with zeros.
REDRAFTER_INLINE void quantise_group(const float* x, int64_t count, int32_t offset, QuantGroup* to) {
  float filled[kGroup] = {};
  if (count < kGroup) {
    std::memcpy(filled, x, static_cast<size_t>(count) * sizeof(float));
    x = filled;
  }
  const int32_t most = largest_bits(x);
  const float largest = bits_to_f32(static_cast<uint32_t>(most));
  if (most >= 0x7f800000 || largest < kLeastMagnitude) {
    *to = {};
    if (most >= 0x7f800000) to->scale = bits_to_f32(0x7fc00000u);
    return;
  }
  to->start = -offset * round_group(x, 127.0f / largest, to->q);
  to->scale = largest / 127.0f;
}

// A block of weights, and the one to ask for meanwhile, ahead_step bytes for each 64 of this one.
struct QuantBlock {
  const uint8_t* weights[kMaxPanels];
  const uint16_t* scales[kMaxPanels];
  const char* ahead[kMaxPanels];
  int64_t groups, ahead_step;
};

// Adds 64 bytes of each of P panels, those at j * 64 in a group, times the elements of x that belong to them.
template <bool kBytes, int R, int P>
REDRAFTER_INLINE void add_products(const QuantGroup* x, const uint8_t* const* w, int j, I16 (&sum)[R][P]) {
  B64 bytes[P];
  for (int p = 0; p < P; ++p) bytes[p] = b64_load(w[p] + j * 64);
  if constexpr (kBytes) {
    for (int r = 0; r < R; ++r) {
      for (int p = 0; p < P; ++p) sum[r][p] = dot_bytes(sum[r][p], bytes[p], x[r].q + 4 * j);
    }
  } else {
    for (int r = 0; r < R; ++r) {
      for (int p = 0; p < P; ++p) sum[r][p] = dot_nibbles(sum[r][p], b64_low(bytes[p]), x[r].q + 4 * j);
    }
    for (int r = 0; r < R; ++r) {
      for (int p = 0; p < P; ++p)
        sum[r][p] = dot_nibbles(sum[r][p], b64_high(bytes[p]), x[r].q + kGroup / 2 + 4 * j);
    }
  }
}

// The same for all lines of a group, and one of each panel is asked for with each. Not a loop, in which the
// compiler would move all sums about.
template <bool kBytes, int R, int P, int... J>
REDRAFTER_INLINE void add_lines(const QuantGroup* x, const uint8_t* const* w, const char** next,
                                int64_t ahead_step, I16 (&sum)[R][P], std::integer_sequence<int, J...>) {
  const auto ask = [&] {
    for (int p = 0; p < P; ++p) f16_prefetch(next[p]), next[p] += ahead_step;
  };
  ((ask(), add_products<kBytes, R, P>(x, w, J, sum)), ...);
}

// Keeps the compiler from holding fp32 sums in registers from group to group: those are for the integers.
REDRAFTER_INLINE void rest_in_memory() {
#if defined(__GNUC__)
  asm volatile("" ::: "memory");
#endif
}

// sums[r][p] continued by the block for R rows. Groups of x lie x_step apart.
template <bool kBytes, int R>
void quant_tile(const QuantGroup* x, int64_t x_step, const QuantBlock& block, float* sums) {
  constexpr int P = kQuantPanels[R - 1];
  const uint8_t* w[P];
  const char* next[P];
  for (int p = 0; p < P; ++p) w[p] = block.weights[p], next[p] = block.ahead[p];
  for (int64_t g = 0; g < block.groups; ++g, x += x_step) {
    I16 sum[R][P];
    for (int r = 0; r < R; ++r) {
      for (int p = 0; p < P; ++p) sum[r][p] = i16_set(x[r].start);
    }
    add_lines<kBytes, R, P>(x, w, next, block.ahead_step, sum, std::make_integer_sequence < int,
                            kBytes ? 8 : 4 > ());
    F16 scale[P];
    for (int p = 0; p < P; ++p) scale[p] = f16_load_half(block.scales[p] + g * kLanes);
    for (int r = 0; r < R; ++r) {
      for (int p = 0; p < P; ++p) {
        float* at = sums + (r * P + p) * kLanes;
        const F16 factor = f16_mul(scale[p], f16_set(x[r].scale));
        f16_store(at, f16_fused(f16_from(sum[r][p]), factor, f16_load(at)));
      }
    }
    for (int p = 0; p < P; ++p) w[p] += kBytes ? 512 : 256;
    rest_in_memory();
  }
}

using QuantTile = void (*)(const QuantGroup*, int64_t, const QuantBlock&, float*);

template <bool kBytes>
constexpr QuantTile kQuantTiles[] = {
    quant_tile<kBytes, 1>, quant_tile<kBytes, 2>,  quant_tile<kBytes, 3>,  quant_tile<kBytes, 4>,
#if defined(__AVX512F__)
    quant_tile<kBytes, 5>, quant_tile<kBytes, 6>,  quant_tile<kBytes, 7>,  quant_tile<kBytes, 8>,
    quant_tile<kBytes, 9>, quant_tile<kBytes, 10>, quant_tile<kBytes, 11>, quant_tile<kBytes, 12>,
#endif
};

// All tiles of `rows` rows over one block; `next` is asked for.
struct QuantBlockTiles {
  const QuantTile* multiply;
  const QuantGroup* x;
  int64_t x_step, rows, tiles, group_bytes, scale_bytes;

  const uint16_t* scales(const PanelBlocks& block, int64_t p) const {
    return reinterpret_cast<const uint16_t*>(block.at(p) - block.offset - scale_bytes) +
           block.offset / group_bytes * kLanes;
  }
  void run(const PanelBlocks& block, const PanelBlocks& next, float* sums) const {
    QuantBlock part;
    part.groups = block.bytes() / group_bytes;
    part.ahead_step = 64 / tiles;
    for (int64_t p = 0; p < block.width; ++p) {
      part.weights[p] = reinterpret_cast<const uint8_t*>(block.at(p));
      part.scales[p] = scales(block, p);
      for (int64_t g = 0; g < next.bytes() / group_bytes; g += 2) f16_prefetch(scales(next, p) + g * kLanes);
    }
    if (block.offset == 0) {
      for (int64_t i = 0; i < rows * block.width; ++i) f16_store(sums + i * kLanes, f16_zero());
    }
    const QuantGroup* groups = x + block.offset / group_bytes * x_step;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t row = tile * rows / tiles, n = (tile + 1) * rows / tiles - row;
      for (int64_t p = 0; p < block.width; ++p)
        part.ahead[p] = next.at(p) + tile * part.ahead_step * (part.groups * group_bytes / 64);
      multiply[n - 1](groups + row, x_step, part, sums + row * block.width * kLanes);
    }
  }
};

}  // namespace

// As panel_multiply. Group g of row r of x is x[g * rows + r].
template <typename Store>
REDRAFTER_INLINE void quant_multiply(const QuantGroup* x, int64_t rows, const Matrix& w, int64_t first,
                                     int64_t count, const Store& store) {
  const QuantTile* multiply = w.dtype == DType::kQ8_0 ? kQuantTiles<true> : kQuantTiles<false>;
  const int64_t group_bytes = panel_group_bytes(w.dtype), scale_bytes = panel_scale_bytes(w.cols);
  const int64_t panel_bytes = groups_of(w.cols) * group_bytes;  // without the scales
  const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t row = block * rows / blocks, n = (block + 1) * rows / blocks - row;
    const int64_t tiles = (n + kQuantRows - 1) / kQuantRows;
    const int64_t width = kQuantPanels[(n + tiles - 1) / tiles - 1];
    over_blocks(QuantBlockTiles{multiply, x + row, rows, n, tiles, group_bytes, scale_bytes},
                PanelBlocks(static_cast<const char*>(w.data) + scale_bytes, scale_bytes + panel_bytes,
                            panel_bytes, first, count, width, tiles == 1 ? width : kGroupPanels,
                            block_size(panel_bytes, kQuantBlockBytes, group_bytes)),
                n, [&](int64_t r, int64_t panel, F16 sum) { store(row + r, panel, sum); });
  }
}

}  // namespace redrafter::REDRAFTER_ISA
