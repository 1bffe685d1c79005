// Reading order: the launcher at the end, attention_kernel, attend, chunk_scores to add_values. The order of
// every sum is stated in attention.h.
#include <algorithm>
#include <cmath>

#include "ops/attention_merge.cuh"
#include "ops/attention_tile.cuh"

namespace redrafter {
namespace {

using namespace attention_tile;

// --- one warp: 16 pairs of a row and a head
// ------------------------------------------------------------------

// Lane 4 g + m of the warp holds, as matrix instructions do, parts of pairs g and g + 8.
template <int D>
struct Pairs {
  uint32_t q[D / 16][4];
  float output[Shape<D>::kOutputs / 8][4];
  float largest[2], sum[2];
  int row[2];       // in the tile; -1: none
  int position[2];  // -1: sees nothing
  // Of the warp: its rows, positions that each of them has as context, positions that some of them sees.
  int first_row, last_row, whole, seen;

  __device__ __forceinline__ void start_split() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      largest[h] = -INFINITY;
      sum[h] = 0.0f;
    }
#pragma unroll
    for (int n = 0; n < Shape<D>::kOutputs / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) output[n][i] = 0.0f;
    }
  }
};

// The first pair of this thread's warp, and which part of their outputs it has.
template <int D>
__device__ __forceinline__ int first_pair() {
  return static_cast<int>(threadIdx.x) / (kWarpThreads * Shape<D>::kShares) * 16;
}
template <int D>
__device__ __forceinline__ int first_output() {
  return static_cast<int>(threadIdx.x) / kWarpThreads % Shape<D>::kShares * Shape<D>::kOutputs;
}

struct PairAddress {
  bool valid;
  int row;   // in the tile
  int head;  // of all heads
};

template <int D>
__device__ __forceinline__ PairAddress pair_address(const Tile& tile, const Heads& heads, int half) {
  const int pair = first_pair<D>() + static_cast<int>(threadIdx.x) % kWarpThreads / 4 + 8 * half;
  const int row = pair / heads.count, head = heads.first + pair % heads.count;
  return {row < tile.count && head < heads.end, row, head};
}

template <typename T, int D>
__device__ __forceinline__ void load_pairs(const AttentionParams& p, const Tile& tile, const Heads& heads,
                                           Pairs<D>& pairs) {
  const int dim = static_cast<int>(p.kv.head_dim), member = threadIdx.x % 4;
  const int64_t width = (p.heads + 2 * p.kv.kv_heads) * dim;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const PairAddress at = pair_address<D>(tile, heads, h);
    pairs.row[h] = at.valid ? at.row : -1;
    pairs.position[h] = at.valid ? tile.row_position[at.row] : -1;
    const float* q = p.qkv + (tile.row + at.row) * width + int64_t{at.head} * dim;
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const int i = k * 16 + part * 8 + member * 2;
        float2 x{0.0f, 0.0f};
        if (at.valid && i < dim) x = *reinterpret_cast<const float2*>(q + i);
        pairs.q[k][h + 2 * part] = T::pack(x.x, x.y);
      }
    }
  }
  pairs.first_row = first_pair<D>() / heads.count;
  pairs.last_row = min(tile.count - 1, (first_pair<D>() + 15) / heads.count);
  pairs.whole = INT32_MAX;
  pairs.seen = 0;
#pragma unroll 1
  for (int row = pairs.first_row; row <= pairs.last_row; ++row) {
    pairs.whole = min(pairs.whole, tile.row_context[row]);
    pairs.seen = max(pairs.seen, tile.row_position[row] + 1);
  }
}

// Fetches what a row of the tile sees beyond its context in the step at `begin`, where tails are too far
// apart for the window: keys (or values) into the warp's rows of it, by place in the step.
template <int D>
__device__ __forceinline__ uint16_t* fetch_tail(const Pages& pages, const Tile& tile, const Shared<D>& shared,
                                                int row, int begin, bool values) {
  const int lane = threadIdx.x % kWarpThreads, first_tail = tile.row_context[row];
  const int end = min(begin + kStep, tile.row_position[row] + 1);
  uint16_t* fetched = shared.window + threadIdx.x / kWarpThreads * kStep * Shape<D>::kPitch;
  __syncwarp();
#pragma unroll 1
  for (int position = max(begin, first_tail); position < end; ++position) {
    const int slot = pages.tails[tile.row_tail[row] + position - first_tail];
    const uint16_t* source = values ? pages.v_row(slot) : pages.k_row(slot);
#pragma unroll 1
    for (int i = lane * 8; i < pages.padded; i += kWarpThreads * 8) {
      *reinterpret_cast<uint4*>(fetched + (position - begin) * Shape<D>::kPitch + i) =
          *reinterpret_cast<const uint4*>(source + i);
    }
  }
  return fetched;
}

// Where a lane finds the keys (or values) that it hands to a matrix load, for one row of the tile and the
// step at `begin`, of which `context` are those of the sequence's slots: what lies at `place` for that row,
// zeros where it sees nothing.
template <int D>
__device__ __forceinline__ const uint16_t* row_source(const Pages& pages, const Tile& tile,
                                                      const Shared<D>& shared, int row, int begin, int place,
                                                      const uint16_t* context, bool values) {
  const int first_tail = tile.row_context[row], position = begin + place;
  const bool sees = position <= tile.row_position[row], in_tail = position >= first_tail;
  const uint16_t* tail = shared.window;
  int at = place;
  if (tile.windowed) {
    if (sees && in_tail) at = tile.path[tile.row_tail[row] - tile.tail + position - first_tail];
    if (values) tail += Shape<D>::kWindow * Shape<D>::kPitch;
  } else {
    tail = fetch_tail(pages, tile, shared, row, begin, values);
  }
  const uint16_t* source = in_tail ? tail + at * Shape<D>::kPitch : context + place * Shape<D>::kPitch;
  __syncwarp();  // what was fetched is there, and matrix loads want all lanes together
  return sees ? source : shared.zeros;
}

// scores[0] and [1] are those of positions 0..7 and 8..15 of a step, before the scale.
template <typename T, int D>
__device__ __forceinline__ void step_scores(const Pairs<D>& pairs, const uint16_t* keys,
                                            float (&scores)[2][4]) {
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[n][i] = 0.0f;
  }
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
    uint32_t b[4];
    ldmatrix_x4(b, keys + k * 16);
    mma_16x8x16<T>(scores[0], pairs.q[k], b[0], b[1]);
    mma_16x8x16<T>(scores[1], pairs.q[k], b[2], b[3]);
  }
}

template <typename T, int D>
__device__ __forceinline__ void chunk_scores(const Pages& pages, const Tile& tile, const Shared<D>& shared,
                                             const Pairs<D>& pairs, int begin, const uint16_t* keys,
                                             float (&scores)[Shape<D>::kChunk / 8][4]) {
  const int lane = threadIdx.x % kWarpThreads;
  const int place = lane / 16 * 8 + lane % 8, dim = lane / 8 % 2 * 8;
#pragma unroll
  for (int step = 0; step < Shape<D>::kSteps; ++step) {
    const int at = begin + step * kStep;
    const uint16_t* context = keys + step * kStep * Shape<D>::kPitch;
    float mine[2][4] = {};
    if (at + kStep <= pairs.whole) {
      step_scores<T>(pairs, context + place * Shape<D>::kPitch + dim, mine);
    } else if (at < pairs.seen) {
#pragma unroll 1
      for (int row = pairs.first_row; row <= pairs.last_row; ++row) {
        if (tile.row_position[row] < at) continue;
        float of_row[2][4];
        step_scores<T>(pairs, row_source(pages, tile, shared, row, at, place, context, false) + dim, of_row);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const bool keep = pairs.row[i / 2] == row;
          mine[0][i] = keep ? of_row[0][i] : mine[0][i];
          mine[1][i] = keep ? of_row[1][i] : mine[1][i];
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      scores[2 * step][i] = mine[0][i];
      scores[2 * step + 1][i] = mine[1][i];
    }
  }
}

// Scores become weights, rounded as the values' factors: weights[n][h] holds positions 8 n + 2 m and the next
// of pair g + 8 h. Totals so far decay, the sum takes in the weights.
template <typename T, int D>
__device__ __forceinline__ void chunk_weights(float scale, int begin, Pairs<D>& pairs,
                                              const float (&scores)[Shape<D>::kChunk / 8][4],
                                              uint32_t (&weights)[Shape<D>::kChunk / 8][2]) {
  constexpr int kTiles = Shape<D>::kChunk / 8;
  const int member = threadIdx.x % 4;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float scaled[kTiles][2];
    float largest = -INFINITY;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const bool sees = begin + n * 8 + member * 2 + i <= pairs.position[h];
        scaled[n][i] = sees ? scores[n][2 * h + i] * scale : -INFINITY;
        largest = scaled[n][i] > largest ? scaled[n][i] : largest;
      }
    }
#pragma unroll
    for (int offset = 1; offset <= 2; offset *= 2) {
      const float other = __shfl_xor_sync(kAllLanes, largest, offset);
      largest = other > largest ? other : largest;
    }
    largest = pairs.largest[h] > largest ? pairs.largest[h] : largest;
    const float shrink = decay(pairs.largest[h], largest);
    pairs.largest[h] = largest;
    // Where every score so far is -Infinity: weights of zero, not the NaN of their difference.
    const float base = largest == -INFINITY ? 0.0f : largest;
    float sum = 0.0f;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      weights[n][h] = T::pack(expf(scaled[n][0] - base), expf(scaled[n][1] - base));
      sum += T::to_float(static_cast<uint16_t>(weights[n][h]));
      sum += T::to_float(static_cast<uint16_t>(weights[n][h] >> 16));
    }
#pragma unroll
    for (int offset = 1; offset <= 2; offset *= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);
    pairs.sum[h] = fmaf(pairs.sum[h], shrink, sum);
#pragma unroll
    for (int n = 0; n < Shape<D>::kOutputs / 8; ++n) {
      pairs.output[n][2 * h] *= shrink;
      pairs.output[n][2 * h + 1] *= shrink;
    }
  }
}

template <typename T, int D>
__device__ __forceinline__ void add_values(const Pages& pages, const Tile& tile, const Shared<D>& shared,
                                           int begin, const uint16_t* values,
                                           const uint32_t (&weights)[Shape<D>::kChunk / 8][2],
                                           Pairs<D>& pairs) {
  const int lane = threadIdx.x % kWarpThreads;
  const int place = lane % 16, dim = first_output<D>() + lane / 16 * 8;
#pragma unroll
  for (int step = 0; step < Shape<D>::kSteps; ++step) {
    const int at = begin + step * kStep;
    const uint16_t* context = values + step * kStep * Shape<D>::kPitch;
    const uint32_t a[4] = {weights[2 * step][0], weights[2 * step][1], weights[2 * step + 1][0],
                           weights[2 * step + 1][1]};
    if (at + kStep <= pairs.whole) {
      const uint16_t* source = context + place * Shape<D>::kPitch + dim;
#pragma unroll
      for (int n = 0; n < Shape<D>::kOutputs / 8; n += 2) {
        uint32_t b[4];
        ldmatrix_x4_transposed(b, source + n * 8);
        mma_16x8x16<T>(pairs.output[n], a, b[0], b[1]);
        mma_16x8x16<T>(pairs.output[n + 1], a, b[2], b[3]);
      }
    } else if (at < pairs.seen) {
#pragma unroll 1
      for (int row = pairs.first_row; row <= pairs.last_row; ++row) {
        if (tile.row_position[row] < at) continue;
        const uint16_t* source = row_source(pages, tile, shared, row, at, place, context, true) + dim;
#pragma unroll
        for (int n = 0; n < Shape<D>::kOutputs / 8; n += 2) {
          uint32_t b[4];
          ldmatrix_x4_transposed(b, source + n * 8);
#pragma unroll
          for (int side = 0; side < 2; ++side) {
            float(&output)[4] = pairs.output[n + side];
            float of_row[4] = {output[0], output[1], output[2], output[3]};
            mma_16x8x16<T>(of_row, a, b[2 * side], b[2 * side + 1]);
#pragma unroll
            for (int i = 0; i < 4; ++i) output[i] = pairs.row[i / 2] == row ? of_row[i] : output[i];
          }
        }
      }
    }
  }
}

// --- the end of a split
// ----

template <int D>
__device__ __forceinline__ void leave_split(const AttentionParams& p, const Work& work, const Tile& tile,
                                            const Heads& heads, int split, const Pairs<D>& pairs) {
  const int dim = static_cast<int>(p.kv.head_dim), member = threadIdx.x % 4;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const bool sees = pairs.position[h] >= split_begin(split);
    const PairAddress at = pair_address<D>(tile, heads, h);
    const int64_t to = ((tile.row + at.row - work.first_row) * p.heads + at.head) * work.splits + split;
    if (sees && member == 0 && first_output<D>() == 0)
      work.totals[to] = float2{pairs.largest[h], pairs.sum[h]};
#pragma unroll
    for (int n = 0; n < Shape<D>::kOutputs / 8; ++n) {
      const int i = first_output<D>() + n * 8 + member * 2;
      if (n % 4 == 0) __syncwarp();  // few stores at once: registers
      if (sees && i < dim) {
        *reinterpret_cast<float2*>(work.outputs + to * dim + i) =
            float2{pairs.output[n][2 * h], pairs.output[n][2 * h + 1]};
      }
    }
  }
}

// The same merge by the block that walks all splits: y holds the output so far, each element at one thread.
template <int D>
__device__ __forceinline__ void fold_split(const AttentionParams& p, const Tile& tile, const Heads& heads,
                                           bool first, bool last, const Pairs<D>& pairs,
                                           float2 (&totals)[2][32 * Shape<D>::kWarps]) {
  const int dim = static_cast<int>(p.kv.head_dim), member = threadIdx.x % 4;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const PairAddress at = pair_address<D>(tile, heads, h);
    float2& so_far = totals[h][threadIdx.x];
    const Factors f = merge_totals(so_far.x, so_far.y, pairs.largest[h], pairs.sum[h]);
    const float sum = so_far.y;
    float* y = p.y + ((tile.row + at.row) * p.heads + at.head) * dim;
#pragma unroll
    for (int n = 0; n < Shape<D>::kOutputs / 8; ++n) {
      const int i = first_output<D>() + n * 8 + member * 2;
      if (n % 4 == 0) __syncwarp();  // few loads at once: registers
      if (!at.valid || i >= dim) continue;
      float2& to = *reinterpret_cast<float2*>(y + i);
      float2 total = first ? float2{0.0f, 0.0f} : to;
      total.x = merge_output(total.x, pairs.output[n][2 * h], f);
      total.y = merge_output(total.y, pairs.output[n][2 * h + 1], f);
      to = last ? float2{finished(total.x, sum), finished(total.y, sum)} : total;
    }
  }
}

// --- kernels
// ------------------------------------------------------------------------------------------------

// Positions begin .. end-1 for the rows of a tile and one KV head.
template <typename T, int D>
__device__ __forceinline__ void attend(const AttentionParams& p, const Work& work, const Tile& tile,
                                       const Shared<D>& shared, int split, int begin, int end) {
  constexpr int kChunk = Shape<D>::kChunk, kStages = Shape<D>::kStages;
  const Heads heads = heads_of_block(p, work);
  const Pages pages = pages_of(p, tile, heads.kv_head);
  const auto stage = [&](int chunk) { return shared.chunks + chunk % kStages * Shape<D>::kChunkElements; };
  const auto fetch = [&](int chunk) {
    const int from = begin + chunk * kChunk;
    copy_slots<D>(pages, from, min(end, tile.context), kChunk, stage(chunk));
    copy_async_commit();
  };
  if (tile.windowed && tile.tail < tile.tail_end && end > tile.common) {
    copy_slots<D>(pages, tile.first_slot, tile.last_slot + 1, Shape<D>::kWindow, shared.window);
  }
#pragma unroll
  for (int chunk = 0; chunk < kStages - 1; ++chunk) fetch(chunk);

  Pairs<D> pairs;
  load_pairs<T>(p, tile, heads, pairs);
  pairs.start_split();
  // Maximum and sum over the splits so far, of a block that takes them all; in shared memory to save
  // registers.
  __shared__ float2 totals[2][32 * Shape<D>::kWarps];
  totals[0][threadIdx.x] = totals[1][threadIdx.x] = float2{-INFINITY, 0.0f};
#pragma unroll 1
  for (int chunk = 0, at = begin; at < end; ++chunk, at += kChunk) {
    copy_async_wait<kStages - 2>();
    __syncthreads();
    fetch(chunk + kStages - 1);
    if (at < pairs.seen) {
      const uint16_t *keys = stage(chunk), *values = keys + kChunk * Shape<D>::kPitch;
      float scores[kChunk / 8][4];
      uint32_t weights[kChunk / 8][2];
      chunk_scores<T>(pages, tile, shared, pairs, at, keys, scores);
      chunk_weights<T>(p.scale, at, pairs, scores, weights);
      add_values<T>(pages, tile, shared, at, values, weights, pairs);
    }
    const int next = at + kChunk;
    if (next < end && !split_starts(next)) continue;
    if (work.splits > 0) {
      leave_split(p, work, tile, heads, split, pairs);
    } else {
      fold_split(p, tile, heads, at < kShortSplit, next >= end, pairs, totals);
      pairs.start_split();
    }
  }
  copy_async_wait<0>();
  __syncthreads();
}

template <typename T, int D>
__global__ void __launch_bounds__(32 * Shape<D>::kWarps, 1) attention_kernel(AttentionParams p, Work work) {
  __shared__ Tile tile;
  const Shared<D> shared(dynamic_shared<uint16_t>());
  shared.clear(static_cast<int>(head_dim_padded(p.kv.head_dim)));
  // Of the splits, the last ones first: they may be longer, and have the draft trees.
  const int split = static_cast<int>(gridDim.z - 1 - blockIdx.z);
  for (int wanted = blockIdx.x; find_tile(p.batch, work, wanted, tile); wanted += gridDim.x) {
    describe_tile(p.batch, Shape<D>::kWindow, tile);
    const bool all = work.splits == 0;
    const int64_t end = all ? tile.seen : min(int64_t{tile.seen}, split_begin(split + 1));
    const int64_t begin = all ? 0 : split_begin(split);
    if (begin >= end) continue;
    attend<T>(p, work, tile, shared, split, static_cast<int>(begin), static_cast<int>(end));
    if (work.arrivals != nullptr && last_to_end(work, tile, int64_t{wanted} * gridDim.y + blockIdx.y)) {
      merge_tile(p, work, tile);
    }
    __syncthreads();  // the tile gives way to the next
  }
}

constexpr int kMergeThreads = 128;

// A thread merges two neighbouring elements of y.
__global__ void __launch_bounds__(kMergeThreads) attention_merge_kernel(AttentionParams p, Work work) {
  const int64_t pieces = p.kv.head_dim / 2;
  const int64_t item = int64_t{blockIdx.x} * kMergeThreads + threadIdx.x, pair = item / pieces;
  if (pair >= work.rows * p.heads) return;
  merge_splits<8>(p, work, work.first_row + pair / p.heads, pair % p.heads, item % pieces * 2);
}

// --- launches
// -----------------------------------------------------------------------------------------------

// From so many blocks on, every block walks all positions of its rows: nothing is left to merge.
constexpr int64_t kEnoughBlocks = 128;
// Up to so many parts of a tile, counted by pair and split, the last of its blocks merges them: less work
// than another launch.
constexpr int64_t kMergedByBlock = 256;

template <typename T, int D>
void attention(const AttentionParams& p, Stream& stream) {
  const int64_t group = p.heads / p.kv.kv_heads, dim = p.kv.head_dim;
  const int64_t parts = ceil_div(group, Shape<D>::kPairs), heads = ceil_div(group, parts);
  const int64_t tile_rows = Shape<D>::kPairs / heads;
  const auto tiles_of = [&](int64_t rows) {
    return std::min(rows, ceil_div(rows, tile_rows) + std::max<int64_t>(p.batch.sequences, 1) - 1);
  };
  const int64_t splits = split_count(p.batch.max_positions);
  const int64_t row_bytes =
      p.heads * splits * (static_cast<int64_t>(sizeof(float2)) + dim * static_cast<int64_t>(sizeof(float)));
  const int64_t fitting = row_bytes == 0 ? 0 : stream.workspace_bytes / row_bytes / tile_rows * tile_rows;
  const bool divided =
      splits > 1 && fitting > 0 && tiles_of(p.batch.rows) * p.kv.kv_heads * parts < kEnoughBlocks;

  Work work{};
  work.tile_rows = static_cast<int>(tile_rows);
  work.heads = static_cast<int>(heads);
  work.parts = static_cast<int>(parts);
  const int64_t at_once = divided ? std::min(p.batch.rows, fitting) : p.batch.rows;
  for (; work.first_row < p.batch.rows; work.first_row += at_once) {
    work.rows = std::min(at_once, p.batch.rows - work.first_row);
    if (divided) {
      work.splits = splits;
      work.totals = static_cast<float2*>(stream.workspace);
      work.outputs = reinterpret_cast<float*>(work.totals + at_once * p.heads * splits);
    }
    const int64_t pairs = std::min(work.rows, tile_rows) * heads;
    const int64_t warps = std::max<int64_t>(4, ceil_div(pairs, 16) * Shape<D>::kShares);
    const dim3 grid(static_cast<unsigned>(tiles_of(work.rows)), static_cast<unsigned>(p.kv.kv_heads * parts),
                    static_cast<unsigned>(divided ? splits : 1));
    const bool by_block = divided && pairs * splits <= kMergedByBlock &&
                          work.rows * p.kv.kv_heads * parts <= stream.counter_count;
    work.arrivals = by_block ? stream.counters : nullptr;
    launch("attention", attention_kernel<T, D>, grid, static_cast<unsigned>(warps * kWarpThreads),
           Shape<D>::kSharedBytes, stream, p, work);
    if (!divided || by_block) continue;
    const int64_t pieces = work.rows * p.heads * (dim / 2);
    launch("attention_merge", attention_merge_kernel, static_cast<unsigned>(ceil_div(pieces, kMergeThreads)),
           kMergeThreads, 0, stream, p, work);
  }
}

}  // namespace

void attention_cuda(const AttentionParams& p, Stream& stream) {
  with_element(p.kv.dtype, [&](auto element) {
    using T = decltype(element);
    if (p.kv.head_dim <= 64) {
      attention<T, 64>(p, stream);
    } else if (p.kv.head_dim <= 128) {
      attention<T, 128>(p, stream);
    } else {
      attention<T, 256>(p, stream);
    }
  });
}

}  // namespace redrafter
