// matmul for many rows: 256 outputs by up to 64 rows per block, x in chunks of K. Either a block has one
// slice of K and the last warps to end add up what all slices left in the workspace, or (serial) it goes
// through all slices itself, where there are blocks enough without or the workspace is too small.
#pragma once

#include <algorithm>

#include "ops/matmul_outputs.cuh"
#include "ops/strip.cuh"

namespace redrafter {
namespace {

constexpr int kPanelStrips = 2 * kWarps;  // two for each warp
constexpr int kPanelOutputs = kPanelStrips * static_cast<int>(kFragmentRows);
constexpr int kPanelColumns = 8, kPanelMaxRows = 8 * kPanelColumns;
constexpr int kPanelDepth = 4;
using PanelStream = WeightStream<2, kPanelDepth>;
constexpr int kPanelRingBytes = kWarps * PanelStream::kRingBytes;
constexpr int kChunkBytes = 16 * 1024;  // of x; there are two
constexpr int kPanelSharedBytes = kPanelRingBytes + 2 * kChunkBytes;

// x rounded to 16 bits: row blocks of kPanelMaxRows, each as stage_rows leaves all of K.
__device__ __forceinline__ char* rounded_block(void* rounded, int64_t row_block, int64_t tiles) {
  return static_cast<char*>(rounded) + row_block * staged_bytes(kPanelMaxRows, tiles);
}

constexpr int kRoundTiles = 16;

template <typename T>
__global__ void matmul_round_kernel(MatmulParams p, void* rounded) {
  const int64_t tiles = fragment_tiles(p.w.cols), first_tile = static_cast<int64_t>(blockIdx.x) * kRoundTiles;
  const int64_t row_block = blockIdx.y, first_row = row_block * kPanelMaxRows;
  const int rows = static_cast<int>(std::min(p.rows - first_row, static_cast<int64_t>(kPanelMaxRows)));
  stage_rows<T>(rounded_block(rounded, row_block, tiles) + staged_bytes(rows, first_tile),
                p.x + first_row * p.x_stride, p.x_stride, rows, p.w.cols, first_tile,
                static_cast<int>(std::min(tiles - first_tile, static_cast<int64_t>(kRoundTiles))),
                static_cast<int>(threadIdx.x), kThreads);
}

// What the blocks of a launch share.
struct Panel {
  int splits;
  int64_t row_blocks;
  void* rounded;       // x as matmul_round_kernel leaves it, or null: blocks round it themselves
  float4* slice_sums;  // [splits][blocks][warps][2 strips][columns][32]; null when blocks have all slices
  uint32_t* ended;     // [blocks][warps] slices
};

// The rows of x of one block, chunk by chunk, in two buffers: while one is multiplied, the other is filled.
template <typename T>
struct PanelRows {
  RowStager<T> stager;
  const char* rounded;  // of these rows, or null
  char* buffers;
  int rows, thread;
  int buffer = 0;      // of the next chunk
  int since_copy = 0;  // steps of the weights since the copies of that chunk were started

  // Starts with the chunk at `tile`: copies, or all that step() has not done when it is taken.
  __device__ __forceinline__ void fill(int64_t tile, int tiles) {
    char* to = buffers + buffer * kChunkBytes;
    if (rounded == nullptr) return stager.begin(to, tile, tiles);
    const char* from = rounded + staged_bytes(rows, tile);
    for (int at = thread * 16; at < tiles * rows * kStagedRowBytes; at += kThreads * 16) {
      copy_async_16(to + at, from + at);
    }
  }
  __device__ __forceinline__ void step() {
    if (rounded == nullptr) stager.step();
  }
  // Gives the chunk that was filled last, and fills the next one. Every thread of the block has then left the
  // chunk before, whose buffer that is.
  __device__ __forceinline__ const char* take(int64_t tile, int tiles, int next_tiles) {
    if (rounded == nullptr) {
      stager.finish();
    } else if (since_copy <= kPanelDepth) {
      copy_async_wait<0>();
    }
    __syncthreads();
    const char* chunk = buffers + buffer * kChunkBytes;
    buffer ^= 1;
    fill(tile + tiles, next_tiles);
    since_copy = tiles;
    return chunk;
  }
};

// The outputs of one warp, and how they end. Piece i of them is strip i / kColumns of the two, column of rows
// i % kColumns; a lane has 4 of a piece.
template <int kColumns>
struct WarpOutputs {
  const MatmulParams& p;
  int64_t first_output, first_row;
  int lane;

  static constexpr int kAtOnce = 2;  // pieces

  // Whether piece i and those that end together with it have no rows.
  __device__ __forceinline__ bool unused(int i) const { return m(i / kAtOnce * kAtOnce) >= p.rows; }

  // Adds up the slices of pieces [begin, end) in ascending order and writes y. Piece i of slice s lies at
  // sums[s * slice_step + (i - begin) * 32]. All loads for two pieces are under way at once.
  __device__ __forceinline__ void finish(const float4* sums, int64_t slice_step, int splits, int begin,
                                         int end) const {
#pragma unroll 1
    for (int i = begin; i < end; i += kAtOnce, sums += kAtOnce * kWarpThreads) {
      if (unused(i)) continue;
      float4 slices[kAtOnce][kMaxSplits];
      Addends addends[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        addends[j] = load_addends(p, n(i + j), m(i + j), lane);
#pragma unroll
        for (int s = 0; s < kMaxSplits; ++s) {
          if (s < splits) slices[j][s] = sums[s * slice_step + j * kWarpThreads];
        }
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        float4 total = slices[j][0];
#pragma unroll
        for (int s = 1; s < kMaxSplits; ++s) {
          if (s < splits) total = add(total, slices[j][s]);
        }
        add_addends(p, total, addends[j]);
        store_outputs(p, n(i + j), m(i + j), lane, total);
      }
    }
  }

 private:
  __device__ __forceinline__ int64_t n(int i) const { return first_output + i / kColumns * kFragmentRows; }
  __device__ __forceinline__ int64_t m(int i) const { return first_row + i % kColumns * 8; }
};

// Leaves the sums of a slice in the workspace; the last warp to do so for these strips and rows ends them.
// Warps, not blocks, so that the work is spread over the blocks that are late.
template <int kColumns>
__device__ void meet_slices(const StripSums<2, kColumns>& sums, const Panel& panel, int slice,
                            const WarpOutputs<kColumns>& outputs) {
  constexpr int kPieces = 2 * kColumns;
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpThreads;
  const int64_t slice_step = static_cast<int64_t>(gridDim.x) * kWarps * kPieces * kWarpThreads;
  float4* first = panel.slice_sums + warp * kPieces * kWarpThreads + outputs.lane;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    if (outputs.unused(i)) continue;
    first[slice * slice_step + i * kWarpThreads] = as_float4(sums[i / kColumns][i % kColumns]);
  }
  __threadfence();
  __syncwarp();
  uint32_t ended = 0;
  if (outputs.lane == 0) ended = atomicAdd(panel.ended + warp, 1u) + 1;
  if (__shfl_sync(kAllLanes, ended, 0) != static_cast<uint32_t>(panel.splits)) return;
  __threadfence();
  __syncwarp();
  if (outputs.lane == 0) panel.ended[warp] = 0;
  outputs.finish(first, slice_step, panel.splits, 0, kPieces);
}

// Block (x, y): row block x % row_blocks, so that blocks which run at the same time share weights; strips
// x / row_blocks; slice y, or all of them (kSerial).
template <typename T, int kColumns, bool kSerial>
__global__ __launch_bounds__(kThreads, kSerial ? 1 : 2) void matmul_panel_kernel(MatmulParams p,
                                                                                 Panel panel) {
  constexpr int kChunkTiles = kChunkBytes / (8 * kColumns * kStagedRowBytes);
  char* shared = dynamic_shared<char>();
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarpThreads, lane = thread % kWarpThreads;
  const int64_t tiles = fragment_tiles(p.w.cols);
  const int64_t row_block = blockIdx.x % panel.row_blocks, first_row = row_block * 8 * kColumns;
  const int64_t strip = blockIdx.x / panel.row_blocks * kPanelStrips + warp * 2;
  const int rows = static_cast<int>(std::min(p.rows - first_row, static_cast<int64_t>(8 * kColumns)));
  const auto slice_begin = [&](int slice) { return tiles * slice / panel.splits; };
  const int first_slice = kSerial ? 0 : static_cast<int>(blockIdx.y);
  const int end_slice = kSerial ? panel.splits : first_slice + 1;
  const int64_t begin = slice_begin(first_slice), end = slice_begin(end_slice);
  const auto chunk_tiles = [&](int64_t tile, int64_t slice_end) {
    return static_cast<int>(std::min(slice_end - tile, static_cast<int64_t>(kChunkTiles)));
  };

  PanelRows<T> x = {RowStager<T>(p.x + first_row * p.x_stride, p.x_stride, rows, p.w.cols, thread, kThreads),
                    panel.rounded == nullptr ? nullptr : rounded_block(panel.rounded, row_block, tiles),
                    shared + kPanelRingBytes, rows, thread};
  const int first_tiles = chunk_tiles(begin, slice_begin(first_slice + 1));
  if (panel.rounded != nullptr) x.fill(begin, first_tiles);
  PanelStream weights(shared + warp * PanelStream::kRingBytes, p.w, strip, 0, 1, begin, end - begin);
  if (panel.rounded == nullptr) x.stager.stage(x.buffers, begin, first_tiles);

  StripSums<2, kColumns> sums, totals;
  for (int slice = first_slice; slice < end_slice; ++slice) {
#pragma unroll
    for (int i = 0; i < 2 * kColumns * 4; ++i) sums[i / 4 / kColumns][i / 4 % kColumns][i % 4] = 0.0f;
    const int64_t slice_end = slice_begin(slice + 1);
    for (int64_t tile = slice_begin(slice); tile < slice_end;) {
      const int count = chunk_tiles(tile, slice_end);
      int next = chunk_tiles(tile + count, slice_end);
      if (next == 0 && slice + 1 < end_slice) next = chunk_tiles(slice_end, slice_begin(slice + 2));
      const char* chunk = x.take(tile, count, next);
      multiply_strips<T>(sums, weights, chunk, rows, count, [&] { x.step(); });
      tile += count;
    }
    if constexpr (kSerial) {
#pragma unroll
      for (int i = 0; i < 2 * kColumns * 4; ++i) {
        float& total = totals[i / 4 / kColumns][i / 4 % kColumns][i % 4];
        const float sum = sums[i / 4 / kColumns][i / 4 % kColumns][i % 4];
        total = slice == 0 ? sum : total + sum;
      }
    }
  }
  const WarpOutputs<kColumns> outputs = {p, strip * kFragmentRows, first_row, lane};
  if (outputs.first_output >= p.w.rows) return;
  if (!kSerial && panel.splits > 1) return meet_slices<kColumns>(sums, panel, first_slice, outputs);
  // By way of the warp's ring, so that the rest is a loop: unrolled, it would need more registers than the
  // product.
  constexpr int kPieces = 2 * kColumns;
  constexpr int kFit = PanelStream::kRingBytes / static_cast<int>(kWarpThreads * sizeof(float4));
  constexpr int kBatch = kPieces < kFit ? kPieces : kFit;
  auto* pieces = reinterpret_cast<float4*>(shared + warp * PanelStream::kRingBytes) + lane;
#pragma unroll
  for (int first = 0; first < kPieces; first += kBatch) {
#pragma unroll
    for (int i = first; i < first + kBatch; ++i) {
      const int s = i / kColumns, c = i % kColumns;
      pieces[(i - first) * kWarpThreads] = as_float4(kSerial ? totals[s][c] : sums[s][c]);
    }
    outputs.finish(pieces, 0, 1, first, first + kBatch);
  }
}

}  // namespace
}  // namespace redrafter
