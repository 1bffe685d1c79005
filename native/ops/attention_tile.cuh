// What one block of attention works on: how positions are divided, which rows it takes together, and their K
// and V in shared memory. For attention.cu alone.
#pragma once

#include "base/ptx.cuh"
#include "ops/attention.h"

namespace redrafter::attention_tile {

// --- the division of positions
// ------------------------------------------------------------------------------

constexpr int kStep = 16;
constexpr int kShortSplit = 256, kShortSplits = 32, kLongSplit = 1024;
constexpr int kLongBegin = kShortSplit * kShortSplits;

__host__ __device__ constexpr int64_t split_begin(int64_t split) {
  return split < kShortSplits ? split * kShortSplit : kLongBegin + (split - kShortSplits) * kLongSplit;
}
__host__ __device__ constexpr int64_t split_count(int64_t positions) {
  return positions <= kLongBegin ? (positions + kShortSplit - 1) / kShortSplit
                                 : kShortSplits + (positions - kLongBegin + kLongSplit - 1) / kLongSplit;
}
inline __device__ bool split_starts(int position) {
  return position % (position < kLongBegin ? kShortSplit : kLongSplit) == 0;
}

// What one instantiation works with: D is the head dimension rounded up to what the loops are unrolled for.
template <int D>
struct Shape {
  static constexpr int kChunk = D > 128 ? 16 : 32;
  static constexpr int kSteps = kChunk / kStep;
  static constexpr int kStages = 3;  // chunks in shared memory: one in use, the others on their way
  static constexpr int kWarps = D > 128 ? 4 : 8;
  // Warps that attend for the same 16 (row, head) pairs, each for a part of the output's dimensions.
  static constexpr int kShares = D > 128 ? 2 : 1;
  static constexpr int kOutputs = D / kShares;
  static constexpr int kPairs = 16 * kWarps / kShares;
  static constexpr int kPitch = D + 8;  // elements from one row to the next: no bank conflicts
  static constexpr int kChunkElements = 2 * kChunk * kPitch;
  // Slots of draft trees that a block keeps at hand; or, in the same memory, 16 of each warp.
  static constexpr int kWindow = 8 * kWarps;
  static constexpr int kRows = kStages * 2 * kChunk + 2 * kWindow + 1;
  static constexpr size_t kSharedBytes = sizeof(uint16_t) * kRows * kPitch;
};

// Rows of one launch, and where what it leaves to the merge goes.
struct Work {
  int64_t first_row, rows;
  int tile_rows;
  int heads;  // of each KV group that a block takes; a large group is divided into several such parts
  int parts;
  int64_t splits;  // blocks of a tile, one for each split; 0: one block takes all and writes y
  float2* totals;  // [rows, heads, splits]: maximum and sum
  float* outputs;  // [rows, heads, splits, head_dim]
  // Counts the blocks of a tile that have ended, [tiles, blocks of all heads]; null: a launch of its own
  // merges.
  uint32_t* arrivals;
};

// The heads that a block attends for.
struct Heads {
  int64_t kv_head;
  int first, end;  // of all heads
  int count;       // pairs of a row; with the last part of a group some have no head
};

inline __device__ Heads heads_of_block(const AttentionParams& p, const Work& work) {
  const int group = static_cast<int>(p.heads / p.kv.kv_heads);
  const int kv_head = static_cast<int>(blockIdx.y) / work.parts;
  const int part = static_cast<int>(blockIdx.y) % work.parts;
  return {kv_head, kv_head * group + part * work.heads, (kv_head + 1) * group, work.heads};
}

// --- tiles
// --------------------------------------------------------------------------------------------------

constexpr int kMaxTileRows = 128;
constexpr int kPathEntries = 2048;

// Consecutive rows of one sequence, which a block attends for together.
struct Tile {
  int row, count;
  int seen;     // positions that some row sees
  int context;  // slots that some row has as context
  int common;   // slots that every row has as context
  int entries;  // in all tails of the rows together
  int first_slot, last_slot;
  bool windowed;  // the slots of all tails fit the window, and path says where in it
  int row_position[kMaxTileRows], row_context[kMaxTileRows], row_tail[kMaxTileRows];
  int row_path[kMaxTileRows];  // where in path the row's tail begins
  uint8_t path[kPathEntries];
};

// Finds tile number `wanted` of the launch: a tile begins every tile_rows rows and where the sequence
// changes.
inline __device__ bool find_tile(const Batch& batch, const Work& work, int wanted, Tile& tile) {
  __shared__ int starts_of_warp[32];
  const int warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  const int warps = blockDim.x / kWarpThreads;
  if (threadIdx.x == 0) {
    tile.row = -1;
    tile.count = 0;
  }
  int seen = 0, end = -1;
  for (int64_t base = 0; base < work.rows && end < 0; base += blockDim.x) {
    const int64_t local = base + threadIdx.x, row = work.first_row + local;
    const bool starts =
        local < work.rows && (local % work.tile_rows == 0 || batch.sequence[row] != batch.sequence[row - 1]);
    const unsigned bits = __ballot_sync(kAllLanes, starts);
    __syncthreads();
    if (lane == 0) starts_of_warp[warp] = __popc(bits);
    __syncthreads();
    int before = seen + __popc(bits & ((1u << lane) - 1));
    for (int w = 0; w < warps; ++w) {
      if (w < warp) before += starts_of_warp[w];
      seen += starts_of_warp[w];
    }
    if (starts && before == wanted) tile.row = static_cast<int>(row);
    if (starts && before == wanted + 1) tile.count = static_cast<int>(row);  // its end, for now
    if (seen > wanted + 1) end = 0;
  }
  __syncthreads();
  if (seen <= wanted) return false;
  if (threadIdx.x == 0) {
    const int last = end == 0 ? tile.count : static_cast<int>(work.first_row + work.rows);
    tile.count = last - tile.row;
    tile.seen = 0;
    tile.entries = 0;
    tile.context = 0;
    tile.common = INT32_MAX;
    tile.first_slot = INT32_MAX;
    tile.last_slot = -1;
  }
  __syncthreads();
  return true;
}

// Calls body(where in path, slot) for the tails of all rows of the tile.
template <typename Body>
__device__ __forceinline__ void each_tail(const Batch& batch, const Tile& tile, const Body& body) {
  const int warps = blockDim.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  for (int row = threadIdx.x / kWarpThreads; row < tile.count; row += warps) {
    const int length = tile.row_position[row] + 1 - tile.row_context[row];
    for (int i = lane; i < length; i += kWarpThreads) {
      body(tile.row_path[row] + i, batch.tail_slots[tile.row_tail[row] + i]);
    }
  }
}

// Fills in what the block needs to know of the rows. `window` is how many slots fit.
inline __device__ void describe_tile(const Batch& batch, int window, Tile& tile) {
  for (int i = threadIdx.x; i < tile.count; i += blockDim.x) {
    const int position = batch.position[tile.row + i];
    const bool inert = position < 0;  // the context of the others counts
    const int context = inert ? INT32_MAX : batch.context[tile.row + i];
    tile.row_position[i] = position;
    tile.row_context[i] = context;
    tile.row_tail[i] = batch.tail_begin[tile.row + i];
    if (inert) continue;
    tile.row_path[i] = atomicAdd(&tile.entries, position + 1 - context);
    atomicMax(&tile.seen, position + 1);
    atomicMax(&tile.context, context);
    atomicMin(&tile.common, context);
  }
  __syncthreads();
  each_tail(batch, tile, [&](int, int slot) {
    atomicMin(&tile.first_slot, slot);
    atomicMax(&tile.last_slot, slot);
  });
  __syncthreads();
  const int first = tile.first_slot;
  const bool windowed = tile.entries <= kPathEntries && tile.last_slot - int64_t{first} < window;
  if (threadIdx.x == 0) tile.windowed = windowed;
  if (windowed) {
    each_tail(batch, tile, [&](int i, int slot) { tile.path[i] = static_cast<uint8_t>(slot - first); });
  }
  __syncthreads();
}

// --- K and V into shared memory
// -----------------------------------------------------------------------------

// The cache as one block sees it: one sequence, one KV head.
struct Pages {
  const uint16_t *k, *v;
  int64_t k_stride, v_stride;
  const int32_t* table;
  const int32_t* tails;  // of all rows
  int padded;

  __device__ int64_t offset(int slot) const {
    return slot % static_cast<int>(kBlockTokens) * int64_t{padded};
  }
  __device__ const uint16_t* k_row(int slot) const {
    return k + table[slot / kBlockTokens] * k_stride + offset(slot);
  }
  __device__ const uint16_t* v_row(int slot) const {
    return v + table[slot / kBlockTokens] * v_stride + offset(slot);
  }
};

inline __device__ Pages pages_of(const AttentionParams& p, const Tile& tile, int64_t kv_head) {
  const KvLayer& kv = p.kv;
  const int64_t padded = head_dim_padded(kv.head_dim), head = kv_head * kBlockTokens * padded;
  return {static_cast<const uint16_t*>(kv.k) + head,
          static_cast<const uint16_t*>(kv.v) + head,
          kv.k_block_stride,
          kv.v_block_stride,
          p.batch.block_tables + p.batch.sequence[tile.row] * p.batch.table_stride,
          p.batch.tail_slots,
          static_cast<int>(padded)};
}

// Starts copying slots begin .. end-1, at most `rows`: keys to row 0 of `to` on, values to row `rows` on.
template <int D>
__device__ __forceinline__ void copy_slots(const Pages& pages, int begin, int end, int rows, uint16_t* to) {
  constexpr int kPieces = D / 8;
  const int piece = threadIdx.x % kPieces * 8;
  if (piece >= pages.padded) return;
#pragma unroll 1
  for (int row = threadIdx.x / kPieces; row < rows && begin + row < end; row += blockDim.x / kPieces) {
    uint16_t* k = to + row * Shape<D>::kPitch + piece;
    copy_async_16(k, pages.k_row(begin + row) + piece);
    copy_async_16(k + rows * Shape<D>::kPitch, pages.v_row(begin + row) + piece);
  }
}

// The parts of a block's shared memory.
template <int D>
struct Shared {
  uint16_t* chunks;  // [kStages, 2, kChunk, kPitch]
  uint16_t* window;  // [2, kWindow, kPitch], or [kWarps, 16, kPitch]
  uint16_t* zeros;   // [kPitch]

  __device__ explicit Shared(uint16_t* memory)
      : chunks(memory),
        window(chunks + Shape<D>::kStages * Shape<D>::kChunkElements),
        zeros(window + 2 * Shape<D>::kWindow * Shape<D>::kPitch) {}

  // Zeros for good: the row of zeros, and in all others what lies beyond the padded head dimension.
  __device__ void clear(int padded) const {
    for (int i = threadIdx.x; i < Shape<D>::kRows * D; i += blockDim.x) {
      const int row = i / D, dim = i % D;
      if (dim >= padded || row == Shape<D>::kRows - 1) chunks[row * Shape<D>::kPitch + dim] = 0;
    }
  }
};

}  // namespace redrafter::attention_tile
