// Rows of x times panels of 16 outputs of a quantised Matrix: the chain stated in matmul_quant.h. Included by
// *_simd.cc only.
#pragma once

#include "base/threads.h"
#include "ops/lanes_simd.h"
#include "ops/matmul_quant.h"
#include "ops/panel_simd.h"

namespace redrafter::REDRAFTER_ISA {

// How many rows take a panel together at most. Several panels beside each other are no faster, and the
// compiler then keeps what it loads of x for all of them, in more registers than there are.
#if defined(__AVX512F__)
constexpr int kQuantRows = 8;
#else
constexpr int kQuantRows = 4;
#endif

// How far ahead of the bytes that are multiplied others are asked for. The processor does so by itself, but
// not far enough where several rows keep it busy: without this, 8 rows take the time to read and the time to
// multiply one after the other. Of 1 to 16 KiB, 8 were best. Panels lie behind each other, so it reaches into
// the next one.
constexpr int64_t kPrefetchBytes = 8192;

namespace {

REDRAFTER_INLINE void quantise_group(const float* x, int64_t count, QuantGroup* to) {
  float v[kGroup] = {};
  if (count >= kGroup) {
    std::memcpy(v, x, sizeof v);
  } else {
    std::memcpy(v, x, static_cast<size_t>(count) * sizeof(float));
  }
  int32_t bits[kGroup];
  std::memcpy(bits, v, sizeof bits);
  int32_t most = 0;  // the bits of magnitudes are in the order of the magnitudes, NaN above all
  for (int i = 0; i < kGroup; ++i) {
    const int32_t magnitude = bits[i] & 0x7fffffff;
    most = magnitude > most ? magnitude : most;
  }
  const float largest = bits_to_f32(static_cast<uint32_t>(most));
  if (most >= 0x7f800000 || largest < kLeastMagnitude) {
    *to = {};
    if (most >= 0x7f800000) to->scale = bits_to_f32(0x7fc00000u);
    return;
  }
  // Added to a small number, 1.5 * 2^23 leaves its nearest integer in the low bits.
  constexpr float kRound = 12582912.0f;
  constexpr int32_t kRoundBits = 0x4b400000;
  const float inverse = 127.0f / largest;
  for (float& e : v) e = e * inverse + kRound;
  std::memcpy(bits, v, sizeof bits);
  int32_t sum = 0;
  for (int i = 0; i < kGroup; ++i) {
    bits[i] -= kRoundBits;
    sum += bits[i];
  }
  for (int i = 0; i < kGroup; ++i) to->q[i] = static_cast<int8_t>(bits[i]);
  to->scale = largest / 127.0f;
  to->sum = sum;
}

// out[r] = row r times the panel, for R rows.
template <bool kBytes, int R>
void quant_tile(const QuantGroup* x, int64_t groups, const uint8_t* panel, int64_t scale_bytes, float* out) {
  constexpr int kVectors = kBytes ? 8 : 4;
  F16 acc[R];
  for (int r = 0; r < R; ++r) acc[r] = f16_zero();
  for (int64_t g = 0; g < groups; ++g) {
    const QuantGroup* xg = x + g;
    const uint8_t* w = panel + scale_bytes + g * (kVectors * 64);
    I16 sum[R];
    for (int r = 0; r < R; ++r)
      sum[r] = i16_set(-(kBytes ? kByteOffset : kNibbleOffset) * xg[r * groups].sum);
    for (int j = 0; j < kVectors; ++j) {
      f16_prefetch(reinterpret_cast<const char*>(w) + kPrefetchBytes + j * 64);
      const B64 bytes = b64_load(w + j * 64);
      if constexpr (kBytes) {
        for (int r = 0; r < R; ++r) sum[r] = dot_bytes(sum[r], bytes, xg[r * groups].q + 4 * j);
      } else {
        const B64 low = b64_low(bytes), high = b64_high(bytes);
        for (int r = 0; r < R; ++r) {
          sum[r] = dot_nibbles(sum[r], low, xg[r * groups].q + 4 * j);
          sum[r] = dot_nibbles(sum[r], high, xg[r * groups].q + kGroup / 2 + 4 * j);
        }
      }
    }
    const F16 scale = f16_load_half(reinterpret_cast<const uint16_t*>(panel) + g * kLanes);
    for (int r = 0; r < R; ++r)
      acc[r] = f16_fused(f16_from(sum[r]), f16_mul(scale, f16_set(xg[r * groups].scale)), acc[r]);
  }
  for (int r = 0; r < R; ++r) f16_store(out + r * kLanes, acc[r]);
}

using QuantTile = void (*)(const QuantGroup*, int64_t, const uint8_t*, int64_t, float*);

template <bool kBytes>
constexpr QuantTile kQuantTiles[] = {quant_tile<kBytes, 1>, quant_tile<kBytes, 2>, quant_tile<kBytes, 3>,
                                     quant_tile<kBytes, 4>,
#if defined(__AVX512F__)
                                     quant_tile<kBytes, 5>, quant_tile<kBytes, 6>, quant_tile<kBytes, 7>,
                                     quant_tile<kBytes, 8>
#endif
};

}  // namespace

// Rows of x as a product with some matrix takes them.
struct Operand {
  const float* x;
  int64_t stride;
  const QuantGroup* groups;  // null: x itself
};

// `room`: quant_room(rows, w.cols) groups, used where w is quantised.
REDRAFTER_INLINE Operand operand(const Matrix& w, const float* x, int64_t stride, int64_t rows,
                                 QuantGroup* room, Stream& stream) {
  if (!dtype_is_quantised(w.dtype)) return {x, stride, nullptr};
  const int64_t groups = groups_of(w.cols), cols = w.cols;
  stream.threads->run(rows, rows * cols, [=](int64_t row, int) {
    for (int64_t g = 0; g < groups; ++g)
      quantise_group(x + row * stride + g * kGroup, cols - g * kGroup, room + row * groups + g);
  });
  return {x, stride, room};
}

// As panel_multiply, for any dtype.
template <typename Store>
REDRAFTER_INLINE void multiply(const Operand& x, int64_t rows, const Matrix& w, int64_t first, int64_t count,
                               const Store& store) {
  if (x.groups == nullptr) return panel_multiply(x.x, x.stride, rows, w, first, count, store);
  const QuantTile* tiles = w.dtype == DType::kQ8_0 ? kQuantTiles<true> : kQuantTiles<false>;
  const int64_t stride = quant_panel_bytes(w.dtype, w.cols), groups = groups_of(w.cols);
  const int64_t blocks = (rows + kQuantRows - 1) / kQuantRows;
  alignas(64) float out[kQuantRows * kLanes];
  for (int64_t panel = first; panel < first + count; ++panel) {
    const uint8_t* weights = static_cast<const uint8_t*>(w.data) + panel * stride;
    for (int64_t block = 0; block < blocks; ++block) {  // as few as hold all rows, of even sizes
      const int64_t row = block * rows / blocks, n = (block + 1) * rows / blocks - row;
      tiles[n - 1](x.groups + row * groups, groups, weights, panel_scale_bytes(w.cols), out);
      for (int64_t r = 0; r < n; ++r) store(row + r, panel, f16_load(out + r * kLanes));
    }
  }
}

}  // namespace redrafter::REDRAFTER_ISA
