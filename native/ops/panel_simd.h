// The inner loop shared by every CPU op that multiplies by a packed Matrix: rows of x times panels of 16
// outputs. Included by *_simd.cc only. One accumulator lane per output, k ascending: the chain stated in
// matmul.h, whatever R and P are. R and P only decide how many independent chains are in flight.
#pragma once

#include "base/simd.h"
#include "base/tensor.h"

namespace redrafter::REDRAFTER_ISA {

// How many rows one pass over a panel takes at most, and with how many panels side by side for each number of
// rows: as many accumulators as the registers hold, and at least the eight that hide the latency of a fused
// multiply-add. AVX-512 has 32 registers of 16 lanes, AVX2 16 of 8, NEON 32 of 4.
#if defined(__AVX512F__)
constexpr int kTileRows = 8;
constexpr int kTilePanels[kTileRows] = {8, 8, 8, 4, 4, 4, 2, 2};
#else
constexpr int kTileRows = 6;
constexpr int kTilePanels[kTileRows] = {4, 2, 2, 1, 1, 1};
#endif
constexpr int kMaxTile = 24;  // rows * panels of the largest tile

namespace {

// out[r][p] = sum_k x[r][k] * panel p, for R rows and P panels. Panels past `panels` repeat the last one;
// their results are dropped by the caller.
template <int R, typename W>
void panel_tile(const float* x, int64_t x_stride, const void* weights, int64_t panel_stride, int64_t panels,
                int64_t k_count, float* out) {
  constexpr int P = kTilePanels[R - 1];
  const auto* w = static_cast<const typename W::Store*>(weights);
  const typename W::Store* wp[P];
  for (int p = 0; p < P; ++p) wp[p] = w + (p < panels ? p : panels - 1) * panel_stride;
  F16 acc[R][P];
  for (int r = 0; r < R; ++r) {
    for (int p = 0; p < P; ++p) acc[r][p] = f16_zero();
  }
  for (int64_t k = 0; k < k_count; ++k) {
    F16 xk[R];
    for (int r = 0; r < R; ++r) xk[r] = f16_set(x[r * x_stride + k]);
    for (int p = 0; p < P; ++p) {
      const F16 wk = W::load(wp[p] + k * kLanes);
      for (int r = 0; r < R; ++r) acc[r][p] = f16_fma(wk, xk[r], acc[r][p]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int p = 0; p < P; ++p) f16_store(out + (r * P + p) * kLanes, acc[r][p]);
  }
}

using PanelTile = void (*)(const float*, int64_t, const void*, int64_t, int64_t, int64_t, float*);

template <typename W>
constexpr PanelTile kPanelTiles[] = {panel_tile<1, W>, panel_tile<2, W>, panel_tile<3, W>,
                                     panel_tile<4, W>, panel_tile<5, W>, panel_tile<6, W>,
#if defined(__AVX512F__)
                                     panel_tile<7, W>, panel_tile<8, W>
#endif
};

inline const PanelTile* panel_tiles(DType dtype) {
  return dtype == DType::kF32   ? kPanelTiles<WF32>
         : dtype == DType::kF16 ? kPanelTiles<WF16>
                                : kPanelTiles<WBF16>;
}

}  // namespace

// Runs panels [first, first + count) of w for all rows and hands each finished (row, panel) vector to
// store(row, panel, F16). Rows are split evenly into as few tiles as hold them.
template <typename Store>
REDRAFTER_INLINE void panel_multiply(const float* x, int64_t x_stride, int64_t rows, const Matrix& w,
                                     int64_t first, int64_t count, const Store& store) {
  const PanelTile* tiles = panel_tiles(w.dtype);
  const int64_t stride = w.cols * kLanes;
  const int64_t blocks = (rows + kTileRows - 1) / kTileRows;
  alignas(64) float out[kMaxTile * kLanes];
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t row = block * rows / blocks, n = (block + 1) * rows / blocks - row;
    const int64_t width = kTilePanels[n - 1];
    for (int64_t panel = first; panel < first + count; panel += width) {
      const int64_t left = first + count - panel;
      const char* weights =
          static_cast<const char*>(w.data) + panel * stride * static_cast<int64_t>(dtype_bytes(w.dtype));
      tiles[n - 1](x + row * x_stride, x_stride, weights, stride, left, w.cols, out);
      for (int64_t r = 0; r < n; ++r) {
        for (int64_t p = 0; p < width && p < left; ++p) {
          store(row + r, panel + p, f16_load(out + (r * width + p) * kLanes));
        }
      }
    }
  }
}

// Stores lanes [0, n) of a vector.
REDRAFTER_INLINE void f16_store_n(float* to, F16 a, int64_t n) {
  if (n >= kLanes) return f16_store(to, a);
  alignas(64) float lanes[kLanes];
  f16_store(lanes, a);
  for (int64_t i = 0; i < n; ++i) to[i] = lanes[i];
}

REDRAFTER_INLINE F16 f16_load_n(const float* from, int64_t n) {
  if (n >= kLanes) return f16_load(from);
  alignas(64) float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = from[i];
  return f16_load(lanes);
}

}  // namespace redrafter::REDRAFTER_ISA
