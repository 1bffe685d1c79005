// The inner loop shared by every CPU op that multiplies by a packed Matrix: rows of x times panels of 16
// outputs. Included by *_simd.cc only. One accumulator lane per output, k ascending: the chain stated in
// matmul.h, whatever the shapes below are. They decide only what is in registers and caches at a time.
//
// Weights stream from memory once for up to kBlockRows rows. A block of weights (some panels by kBlockBytes
// each) stays in the first-level cache while tiles of up to kTileRows rows pass over it, each with its
// accumulators in registers; between blocks of K they rest in `sums`. Meanwhile the next block is prefetched,
// evenly over the tiles, so that memory is busy all the time that multiply-adds take.
#pragma once

#include "base/simd.h"
#include "base/tensor.h"

namespace redrafter::REDRAFTER_ISA {

// How many rows a tile takes at most, and with how many panels side by side for each number of rows: as many
// accumulators as fit the registers beside a vector of weights for each panel and one of x (AVX-512 has 32
// registers of 16 lanes, AVX2 16 of 8, NEON 32 of 4), and chains enough to hide the latency of a fused
// multiply-add. Tiles of which there are several have one width.
#if defined(__AVX512F__)
constexpr int kTileRows = 12;
constexpr int kTilePanels[kTileRows] = {8, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2};
#else
constexpr int kTileRows = 6;
constexpr int kTilePanels[kTileRows] = {4, 2, 1, 1, 1, 1};
#endif
constexpr int kMaxPanels = 8;
// Of wider tiles blocks are whole panels, which the processor's own prefetching keeps up with.
constexpr int kPrefetched = 4;
static_assert(kTilePanels[kTileRows / 2 - 1] == kTilePanels[kTileRows - 1]);  // of all tiles of more rows
constexpr int kBlockRows = 64;     // rows that share one pass over the weights
constexpr int kGroupPanels = 8;    // panels that share what is loaded of x, when there are several tiles
constexpr int kBlockBytes = 8192;  // of a panel in a block

namespace {

// sums[r][p] continued by `steps` lines of 64 bytes of P panels, and `rest` columns after them, for R rows.
// Rows lie x_stride apart, sums of a row P vectors. One line per panel is prefetched for each step.
template <int R, typename W>
void panel_tile(const float* x, int64_t x_stride, const void* const* weights, int64_t steps, int64_t rest,
                const char* const* ahead, int64_t ahead_step, float* sums) {
  using T = typename W::Store;
  constexpr int P = kTilePanels[R - 1];
  constexpr int kColumns = 64 / (kLanes * static_cast<int>(sizeof(T)));  // in a line
  const T* w[P];
  const char* next[P];
  for (int p = 0; p < P; ++p) w[p] = static_cast<const T*>(weights[p]), next[p] = ahead[p];
  // One pointer for three rows: the others are at an index of one and two strides, and so all of them fit.
  const float* rows[(R + 2) / 3];
  for (int i = 0; i < (R + 2) / 3; ++i) rows[i] = x + 3 * i * x_stride;
  F16 acc[R][P];
  for (int r = 0; r < R; ++r) {
    for (int p = 0; p < P; ++p) acc[r][p] = f16_load(sums + (r * P + p) * kLanes);
  }
  const auto column = [&](int k) {
    F16 wk[P];
    for (int p = 0; p < P; ++p) wk[p] = W::load(w[p] + k * kLanes);
    for (int r = 0; r < R; ++r) {
      const F16 xk = f16_set(rows[r / 3][r % 3 * x_stride + k]);
      for (int p = 0; p < P; ++p) acc[r][p] = f16_fma(wk[p], xk, acc[r][p]);
    }
  };
  for (int64_t step = 0; step < steps; ++step) {
    if constexpr (P <= kPrefetched) {
      for (int p = 0; p < P; ++p) f16_prefetch(next[p]), next[p] += ahead_step;
    }
    for (int k = 0; k < kColumns; ++k) column(k);
    for (int p = 0; p < P; ++p) w[p] += kColumns * kLanes;
    for (int i = 0; i < (R + 2) / 3; ++i) rows[i] += kColumns;
  }
  for (int k = 0; k < rest; ++k) column(k);
  for (int r = 0; r < R; ++r) {
    for (int p = 0; p < P; ++p) f16_store(sums + (r * P + p) * kLanes, acc[r][p]);
  }
}

using PanelTile = void (*)(const float*, int64_t, const void* const*, int64_t, int64_t, const char* const*,
                           int64_t, float*);

template <typename W>
constexpr PanelTile kPanelTiles[] = {
    panel_tile<1, W>,  panel_tile<2, W>,  panel_tile<3, W>,
    panel_tile<4, W>,  panel_tile<5, W>,  panel_tile<6, W>,
#if defined(__AVX512F__)
    panel_tile<7, W>,  panel_tile<8, W>,  panel_tile<9, W>,
    panel_tile<10, W>, panel_tile<11, W>, panel_tile<12, W>,
#endif
};

inline const PanelTile* panel_tiles(DType dtype) {
  return dtype == DType::kF32   ? kPanelTiles<WF32>
         : dtype == DType::kF16 ? kPanelTiles<WF16>
                                : kPanelTiles<WBF16>;
}

// The size of a block of a panel, a multiple of `step` and at most `most`, which is one, too. Blocks are
// nearly even, so that one has time to ask for all of the next.
constexpr int64_t block_size(int64_t panel_bytes, int64_t most, int64_t step) {
  const int64_t blocks = (panel_bytes + most - 1) / most;
  return ceil_to((panel_bytes + blocks - 1) / blocks, step);
}

// The blocks of a run of panels, in the order in which they are multiplied: groups of panels, in a group
// blocks of K, in those `width` panels at a time.
struct PanelBlocks {
  const char* data;  // of panel 0; that of panel p begins p * stride after it
  int64_t stride, panel_bytes;
  int64_t end, width, group_panels, block_bytes;
  int64_t group = 0, group_end = 0, panel = 0, offset = 0;  // first panel of the group and of the block, byte

  PanelBlocks(const void* first_data, int64_t panel_stride, int64_t bytes_of_panel, int64_t first,
              int64_t count, int64_t side_by_side, int64_t in_group, int64_t bytes_of_block)
      : data(static_cast<const char*>(first_data)),
        stride(panel_stride),
        panel_bytes(bytes_of_panel),
        end(first + count),
        width(side_by_side),
        group_panels(in_group),
        block_bytes(bytes_of_block) {
    start(first);
  }
  void start(int64_t first) {
    group = panel = first;
    group_end = first + group_panels < end ? first + group_panels : end;
    offset = 0;
  }
  bool done() const { return group >= end; }
  int64_t bytes() const { return panel_bytes - offset < block_bytes ? panel_bytes - offset : block_bytes; }
  bool last() const { return offset + block_bytes >= panel_bytes; }
  int64_t valid() const { return panel + width < group_end ? width : group_end - panel; }
  // Where its part of panel p lies. Panels past the last repeat it, and their sums are dropped.
  const char* at(int64_t p) const {
    return data + (panel + (p < valid() ? p : valid() - 1)) * stride + offset;
  }
  void next() {
    panel += width;
    if (panel < group_end) return;
    panel = group;
    offset += block_bytes;
    if (offset >= panel_bytes) start(group_end);
  }
};

// All tiles of `rows` rows over one block; `next` is prefetched.
struct BlockTiles {
  const PanelTile* multiply;
  const float* x;
  int64_t x_stride, rows, tiles, column_bytes;

  void run(const PanelBlocks& block, const PanelBlocks& next, float* sums) const {
    const void* weights[kMaxPanels];
    for (int64_t p = 0; p < block.width; ++p) weights[p] = block.at(p);
    const int64_t bytes = block.bytes(), steps = bytes / 64, rest = bytes % 64 / column_bytes;
    if (block.offset == 0) {
      for (int64_t i = 0; i < rows * block.width; ++i) f16_store(sums + i * kLanes, f16_zero());
    }
    const float* columns = x + block.offset / column_bytes;
    const int64_t ahead_step = 64 / tiles;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t row = tile * rows / tiles, n = (tile + 1) * rows / tiles - row;
      const char* ahead[kMaxPanels];
      for (int64_t p = 0; p < block.width; ++p) ahead[p] = next.at(p) + tile * ahead_step * steps;
      multiply[n - 1](columns + row * x_stride, x_stride, weights, steps, rest, ahead, ahead_step,
                      sums + row * block.width * kLanes);
    }
  }
};

// All tiles over all blocks from `block` on. Hands each finished (row, panel) vector to store(row, panel,
// F16).
template <typename Tiles, typename Store>
REDRAFTER_INLINE void over_blocks(const Tiles& all, PanelBlocks block, int64_t rows, const Store& store) {
  alignas(64) float sums[kBlockRows * kGroupPanels * kLanes];
  while (!block.done()) {
    PanelBlocks next = block;
    next.next();
    float* block_sums = sums + (block.panel - block.group) * rows * kLanes;
    all.run(block, next.done() ? block : next, block_sums);
    for (int64_t r = 0; block.last() && r < rows; ++r) {
      for (int64_t p = 0; p < block.valid(); ++p)
        store(r, block.panel + p, f16_load(block_sums + (r * block.width + p) * kLanes));
    }
    block = next;
  }
}

}  // namespace

// Runs panels [first, first + count) of w for `rows` <= kBlockRows rows.
template <typename Store>
REDRAFTER_INLINE void panel_block_multiply(const float* x, int64_t x_stride, int64_t rows, const Matrix& w,
                                           int64_t first, int64_t count, const Store& store) {
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t width = kTilePanels[(rows + tiles - 1) / tiles - 1];
  const int64_t column_bytes = kLanes * static_cast<int64_t>(dtype_bytes(w.dtype));
  const int64_t panel_bytes = w.cols * column_bytes;
  over_blocks(
      BlockTiles{panel_tiles(w.dtype), x, x_stride, rows, tiles, column_bytes},
      PanelBlocks(w.data, panel_bytes, panel_bytes, first, count, width, tiles == 1 ? width : kGroupPanels,
                  width > kPrefetched ? panel_bytes : block_size(panel_bytes, kBlockBytes, 64)),
      rows, store);
}

// The same for any number of rows, which are split evenly into as few blocks as hold them.
template <typename Store>
REDRAFTER_INLINE void panel_multiply(const float* x, int64_t x_stride, int64_t rows, const Matrix& w,
                                     int64_t first, int64_t count, const Store& store) {
  const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t row = block * rows / blocks, n = (block + 1) * rows / blocks - row;
    panel_block_multiply(x + row * x_stride, x_stride, n, w, first, count,
                         [&](int64_t r, int64_t panel, F16 sum) { store(row + r, panel, sum); });
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
