// The draft head. A block multiplies 128 of its rows by all beams and keeps of the logits what can matter:
// per beam the best of them as sorted keys (top.cuh), their largest and the sum of exponentials. A second
// kernel merges those of one beam.
#include "ops/drafter.h"
#include "ops/strip.cuh"
#include "ops/top.cuh"

namespace redrafter {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpThreads;
constexpr int kMostRows = 64;  // of a block
constexpr int kTileOutputs = kWarps * static_cast<int>(kFragmentRows);
constexpr int kTileKeys = kTileOutputs / kWarpThreads;  // per lane
constexpr int kLogitStride = kTileOutputs + 4;
constexpr int kChunkBytes = 16 * 1024;  // of z; there are two
using Weights = WeightStream<1, 6>;
constexpr int kSharedBytes = kWarps * Weights::kRingBytes + 2 * kChunkBytes;
static_assert(kMostRows * kLogitStride * static_cast<int>(sizeof(float)) <= kSharedBytes);

// What the tiles leave for the merge.
struct Tiles {
  int64_t count;
  int64_t length;  // places of a list
  uint64_t* key;   // [rows, count, length], descending, empty places zero
  float2* stats;   // [rows, count] largest logit, and sum of exp(logit - largest): NaN when a logit is
};

// The logits of this block in shared memory, [row][kLogitStride].
template <typename T, int kColumns>
__device__ __forceinline__ float* tile_logits(const HeadTopParams& p, int64_t first_row, int rows) {
  constexpr int kChunkTiles = kChunkBytes / (8 * kColumns * kStagedRowBytes);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpThreads;
  const int64_t exit = p.head.cols, tiles = fragment_tiles(exit);
  char* shared = dynamic_shared<char>();
  Weights weights(shared + warp * Weights::kRingBytes, p.head,
                  static_cast<int64_t>(blockIdx.x) * kWarps + warp, 0, 1, 0, tiles);
  // Two buffers: who is ahead stages the other one, and waits for the rest at the next barrier.
  char* chunk = shared + kWarps * Weights::kRingBytes;
  char* other = chunk + kChunkBytes;
  StripSums<1, kColumns> sums = {};
  for (int64_t tile = 0; tile < tiles; tile += kChunkTiles) {
    const int count = static_cast<int>(min(tiles - tile, static_cast<int64_t>(kChunkTiles)));
    stage_rows<T>(chunk, p.z + first_row * exit, exit, rows, exit, tile, count, thread, kThreads);
    __syncthreads();
    multiply_strips<T>(sums, weights, chunk, rows, count);
    char* staged = chunk;
    chunk = other;
    other = staged;
  }
  __syncthreads();
  auto* logits = reinterpret_cast<float*>(shared);
  visit_outputs(sums, [&](int output, int row, float sum) {
    if (row < rows) logits[row * kLogitStride + warp * kFragmentRows + output] = sum;
  });
  __syncthreads();
  return logits;
}

// The best of kTileKeys keys per lane, sorted, in the first list.
template <int kKeys>
__device__ __forceinline__ void best_of_tile(uint64_t (&lists)[kTileKeys / kKeys][kKeys]) {
  constexpr int kLists = kTileKeys / kKeys;
  sort_lists(lists);
#pragma unroll
  for (int step = 1; step < kLists; step *= 2) {
#pragma unroll
    for (int i = 0; i < kLists; i += 2 * step) merge_lists(lists[i], lists[i + step]);
  }
}

// kKeys: keys per lane in the list of a tile, so that 32 * kKeys hold `top`.
template <typename T, int kColumns, int kKeys>
__global__ __launch_bounds__(kThreads, 2) void head_tile_kernel(HeadTopParams p, Tiles to) {
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kMostRows;
  const int rows = static_cast<int>(min(p.rows - first_row, int64_t{8} * kColumns));
  const float* logits = tile_logits<T, kColumns>(p, first_row, rows);
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTileOutputs;
  for (int row = warp; row < rows; row += kWarps) {
    uint64_t lists[kTileKeys / kKeys][kKeys];
    float logit[kTileKeys], largest = -INFINITY, sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kTileKeys; ++i) {
      const int output = i * kWarpThreads + lane;
      const bool exists = first + output < p.head.rows;
      logit[i] = exists ? logits[row * kLogitStride + output] : -INFINITY;
      largest = logit[i] > largest ? logit[i] : largest;
      lists[i / kKeys][i % kKeys] = exists ? top_key(logit[i], first + output) : 0;
    }
    largest = warp_max(largest);
#pragma unroll
    for (int i = 0; i < kTileKeys; ++i) sum += logit[i] == -INFINITY ? 0.0f : expf(logit[i] - largest);
    sum = warp_sum(sum);
    best_of_tile<kKeys>(lists);
    const int64_t at = (first_row + row) * to.count + blockIdx.x;
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      const int place = i * kWarpThreads + lane;
      if (place < to.length) to.key[at * to.length + place] = lists[0][i];
    }
    if (lane == 0) to.stats[at] = {largest, sum};
  }
}

constexpr int kMergeThreads = 512, kMergeWarps = kMergeThreads / kWarpThreads;

// log-sum-exp of a row, in all threads: each takes every kMergeThreads-th tile, ascending.
__device__ float merge_sums(const float2* stats, int64_t count) {
  __shared__ float largest_of[kMergeWarps], sum_of[kMergeWarps];
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  float largest = -INFINITY, sum = 0.0f;
  for (int64_t t = threadIdx.x; t < count; t += kMergeThreads) {
    largest = stats[t].x > largest ? stats[t].x : largest;
  }
  largest_of[warp] = warp_max(largest);
  __syncthreads();
  largest = largest_of[0];
  for (int i = 1; i < kMergeWarps; ++i) largest = largest_of[i] > largest ? largest_of[i] : largest;
  for (int64_t t = threadIdx.x; t < count; t += kMergeThreads) {
    sum += stats[t].y * expf(stats[t].x - largest);
  }
  sum_of[warp] = warp_sum(sum);
  __syncthreads();
  sum = sum_of[0];
  for (int i = 1; i < kMergeWarps; ++i) sum += sum_of[i];
  return largest + logf(sum);
}

// This warp's share of the keys of a row, merged into one list.
template <int kKeys>
__device__ __forceinline__ void merge_share(uint64_t (&best)[kKeys], const uint64_t* keys, int64_t count) {
  constexpr int kList = kWarpThreads * kKeys;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  uint64_t next[kKeys];
  const auto load = [&](int64_t first) {
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      const int64_t at = first + i * kWarpThreads + lane;
      next[i] = at < count ? keys[at] : 0;
    }
  };
  const int64_t step = int64_t{kMergeWarps} * kList;
  load(int64_t{warp} * kList);
  for (int64_t first = int64_t{warp} * kList; first < count; first += step) {
    uint64_t list[1][kKeys];
    const uint64_t last = __shfl_sync(kAllLanes, best[kKeys - 1], kWarpThreads - 1);
    bool better = false;
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      list[0][i] = next[i];
      better = better || next[i] > last;
    }
    load(first + step);  // on its way while this one is sorted
    if (!__any_sync(kAllLanes, better)) continue;
    sort_lists(list);
    merge_lists(best, list[0]);
  }
}

// One block per beam.
template <int kKeys>
__global__ __launch_bounds__(kMergeThreads, 1) void head_merge_kernel(HeadTopParams p, Tiles from) {
  __shared__ uint64_t lists[kMergeWarps][kKeys][kWarpThreads];
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int64_t row = blockIdx.x;
  uint64_t best[kKeys] = {};
  merge_share(best, from.key + row * from.count * from.length, from.count * from.length);
  for (int half = kMergeWarps / 2; half > 0; half /= 2) {
    if (warp >= half && warp < 2 * half) {
#pragma unroll
      for (int i = 0; i < kKeys; ++i) lists[warp][i][lane] = best[i];
    }
    __syncthreads();
    if (warp < half) {
      uint64_t other[kKeys];
#pragma unroll
      for (int i = 0; i < kKeys; ++i) other[i] = lists[warp + half][i][lane];
      merge_lists(best, other);
    }
  }
  const float log_sum_exp = merge_sums(from.stats + row * from.count, from.count);
  if (threadIdx.x == 0) p.log_sum_exp[row] = log_sum_exp;
  if (warp != 0) return;
#pragma unroll
  for (int i = 0; i < kKeys; ++i) {
    const int64_t place = i * kWarpThreads + lane;
    if (place >= p.top) continue;
    p.token[row * p.top + place] = top_id(best[i]);
    p.logit[row * p.top + place] = top_value(best[i]);
  }
}

template <typename T, int kColumns, int kKeys>
void launch_head(const HeadTopParams& p, const Tiles& tiles, Stream& stream) {
  launch("head_top", head_tile_kernel<T, kColumns, kKeys>,
         dim3(static_cast<uint32_t>(tiles.count), static_cast<uint32_t>(ceil_div(p.rows, kMostRows))),
         kThreads, kSharedBytes, stream, p, tiles);
  launch("head_top", head_merge_kernel<kKeys>, dim3(static_cast<uint32_t>(p.rows)), kMergeThreads, 0, stream,
         p, tiles);
}

template <typename T, int kKeys>
void launch_columns(const HeadTopParams& p, const Tiles& tiles, Stream& stream) {
  if (p.rows <= 8) return launch_head<T, 1, kKeys>(p, tiles, stream);
  if (p.rows <= 16) return launch_head<T, 2, kKeys>(p, tiles, stream);
  if (p.rows <= 32) return launch_head<T, 4, kKeys>(p, tiles, stream);
  launch_head<T, 8, kKeys>(p, tiles, stream);
}

void launch_rows(const HeadTopParams& p, const Tiles& tiles, Stream& stream) {
  with_element(p.head.dtype, [&](auto element) {
    using T = decltype(element);
    if (p.top <= kWarpThreads) {
      launch_columns<T, 1>(p, tiles, stream);
    } else {
      launch_columns<T, 2>(p, tiles, stream);
    }
  });
}

}  // namespace

void head_top_cuda(const HeadTopParams& p, Stream& stream) {
  const int64_t count = ceil_div(p.head.rows, kTileOutputs);
  const int64_t row_bytes = count * static_cast<int64_t>(p.top * sizeof(uint64_t) + sizeof(float2));
  const int64_t scratch_bytes = p.rows * p.head.rows * static_cast<int64_t>(sizeof(float));
  const bool in_workspace =
      stream.workspace_bytes >= p.rows * row_bytes || stream.workspace_bytes >= scratch_bytes;
  auto* keys = static_cast<uint64_t*>(in_workspace ? stream.workspace : p.scratch);
  const int64_t at_once = (in_workspace ? stream.workspace_bytes : scratch_bytes) / row_bytes;
  if (p.top > 2 * kWarpThreads || at_once == 0) {
    cuda_ok(cudaErrorInvalidValue, "head_top", stream);
    return;
  }
  for (int64_t first = 0; first < p.rows; first += at_once) {
    HeadTopParams part = p;
    part.rows = p.rows - first < at_once ? p.rows - first : at_once;
    part.z += first * p.head.cols;
    part.token += first * p.top;
    part.logit += first * p.top;
    part.log_sum_exp += first;
    launch_rows(part, {count, p.top, keys, reinterpret_cast<float2*>(keys + part.rows * count * p.top)},
                stream);
  }
}

}  // namespace redrafter
