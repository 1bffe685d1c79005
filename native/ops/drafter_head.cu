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

// What the tiles leave for the merge, in scratch; the logits themselves go no further than shared memory.
struct Tiles {
  int64_t count;
  uint64_t* keys;  // [rows, count, top] of the best logits, descending
  float* sum;      // [rows, count] sum of exp(logit - best); NaN when a logit is
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
  // Two buffers: while one is multiplied, the other one takes the next rows.
  char* chunk = shared + kWarps * Weights::kRingBytes;
  char* next = chunk + kChunkBytes;
  const auto tiles_from = [&](int64_t tile) {
    return static_cast<int>(min(max(tiles - tile, int64_t{0}), static_cast<int64_t>(kChunkTiles)));
  };
  RowStager<T> z(p.z + first_row * exit, exit, rows, exit, thread, kThreads);
  z.stage(chunk, 0, tiles_from(0));
  StripSums<1, kColumns> sums = {};
  for (int64_t tile = 0; tile < tiles; tile += kChunkTiles) {
    __syncthreads();
    z.begin(next, tile + kChunkTiles, tiles_from(tile + kChunkTiles));
    multiply_strips<T>(sums, weights, chunk, rows, tiles_from(tile), [&] { z.step(); });
    z.finish();
    char* multiplied = chunk;
    chunk = next;
    next = multiplied;
  }
  __syncthreads();
  auto* logits = reinterpret_cast<float*>(shared);
  visit_outputs(sums, [&](int output, int row, float sum) {
    if (row < rows) logits[row * kLogitStride + warp * kFragmentRows + output] = sum;
  });
  __syncthreads();
  return logits;
}

template <typename T, int kColumns>
__global__ __launch_bounds__(kThreads, 2) void head_tile_kernel(HeadTopParams p, Tiles to) {
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kMostRows;
  const int rows = static_cast<int>(min(p.rows - first_row, int64_t{8} * kColumns));
  const float* logits = tile_logits<T, kColumns>(p, first_row, rows);
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTileOutputs;
  for (int here = warp; here < rows; here += kWarps) {
    const int64_t row = first_row + here;
    const uint32_t* mask = mask_of(p, row);
    float logit[kTileKeys], sum = 0.0f;
    uint64_t lists[2][2];
    static_assert(kTileKeys == 4);
#pragma unroll
    for (int i = 0; i < kTileKeys; ++i) {
      const int64_t id = first + i * kWarpThreads + lane;
      const bool is_row = id < p.head.rows && may_choose(p, mask, id);
      logit[i] = is_row ? logits[here * kLogitStride + i * kWarpThreads + lane] : -INFINITY;
      lists[i / 2][i % 2] = is_row ? top_key(logit[i], id) : 0;
    }
    sort_lists(lists);
    merge_lists(lists[0], lists[1]);
    const float largest = top_value(__shfl_sync(kAllLanes, lists[0][0], 0));
#pragma unroll
    for (int i = 0; i < kTileKeys; ++i) sum += logit[i] == -INFINITY ? 0.0f : expf(logit[i] - largest);
    sum = warp_sum(sum);
    const int64_t tile = row * to.count + blockIdx.x;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int64_t place = i * kWarpThreads + lane;
      if (place < p.top) to.keys[tile * p.top + place] = lists[0][i];
    }
    if (lane == 0) to.sum[tile] = sum;
  }
}

constexpr int kMergeThreads = 1024, kMergeWarps = kMergeThreads / kWarpThreads;

// log-sum-exp of a row whose largest logit is given: each thread takes every kMergeThreads-th tile,
// ascending. In thread 0.
__device__ __forceinline__ float merge_sums(const Tiles& from, int64_t row, int64_t top, float largest) {
  __shared__ float sums[kMergeWarps];
  float sum = 0.0f;
  for (int64_t t = row * from.count + threadIdx.x; t < (row + 1) * from.count; t += kMergeThreads) {
    sum += from.sum[t] * expf(top_value(from.keys[t * top]) - largest);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % kWarpThreads == 0) sums[threadIdx.x / kWarpThreads] = sum;
  __syncthreads();
  sum = sums[0];
  for (int i = 1; i < kMergeWarps; ++i) sum += sums[i];
  return largest + logf(sum);
}

template <int kKeys>
using KeyList = uint64_t[kKeys];
template <int kKeys>
using WarpLists = uint64_t[kMergeWarps][kKeys * kWarpThreads];

// The best of the keys key_of(0) .. key_of(count - 1), descending: in the list of warp 0 and in lists[0].
// Barriers of the whole block.
template <int kKeys, typename KeyOf>
__device__ __forceinline__ void best_of_block(KeyList<kKeys>& best, WarpLists<kKeys>& lists, int64_t count,
                                              const KeyOf& key_of) {
  constexpr int kList = kWarpThreads * kKeys;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
#pragma unroll
  for (int i = 0; i < kKeys; ++i) best[i] = 0;
  for (int64_t first = int64_t{warp} * kList; first < count; first += int64_t{kMergeWarps} * kList) {
    uint64_t list[1][kKeys];
    const uint64_t last = __shfl_sync(kAllLanes, best[kKeys - 1], kWarpThreads - 1);
    bool better = false;
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      const int64_t at = first + i * kWarpThreads + lane;
      list[0][i] = at < count ? key_of(at) : 0;
      better = better || list[0][i] > last;
    }
    if (!__any_sync(kAllLanes, better)) continue;
    sort_lists(list);
    merge_lists(best, list[0]);
  }
  int half = kMergeWarps;  // warps that have keys, rounded up to a power of two, and then half of them
  while (half > 1 && int64_t{half} / 2 * kList >= count) half /= 2;
  for (half /= 2; half > 0; half /= 2) {
    if (warp >= half && warp < 2 * half) {
#pragma unroll
      for (int i = 0; i < kKeys; ++i) lists[warp][i * kWarpThreads + lane] = best[i];
    }
    __syncthreads();
    if (warp >= half) continue;
    uint64_t other[kKeys];
#pragma unroll
    for (int i = 0; i < kKeys; ++i) other[i] = lists[warp + half][i * kWarpThreads + lane];
    merge_lists(best, other);
  }
  if (warp == 0) {
#pragma unroll
    for (int i = 0; i < kKeys; ++i) lists[0][i * kWarpThreads + lane] = best[i];
  }
  __syncthreads();
}

// One block per beam.
template <int kKeys>
__global__ __launch_bounds__(kMergeThreads, 1) void head_merge_kernel(HeadTopParams p, Tiles from) {
  __shared__ WarpLists<kKeys> lists;
  const int64_t row = blockIdx.x, count = from.count * p.top;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  KeyList<kKeys> best;
  best_of_block<kKeys>(best, lists, count, [&](int64_t i) { return from.keys[row * count + i]; });
  const float log_sum_exp = merge_sums(from, row, p.top, top_value(lists[0][0]));
  if (threadIdx.x == 0) p.log_sum_exp[row] = log_sum_exp;
  if (threadIdx.x >= kWarpThreads) return;
#pragma unroll
  for (int i = 0; i < kKeys; ++i) {
    const int64_t place = i * kWarpThreads + lane;
    if (place >= p.top) continue;
    p.token[row * p.top + place] = top_id(best[i]);
    p.logit[row * p.top + place] = top_value(best[i]);
  }
}

template <typename T>
void launch_tiles(const HeadTopParams& p, const Tiles& tiles, Stream& stream) {
  const auto start = [&](void (*kernel)(HeadTopParams, Tiles)) {
    launch("head_top", kernel,
           dim3(static_cast<uint32_t>(tiles.count), static_cast<uint32_t>(ceil_div(p.rows, kMostRows))),
           kThreads, kSharedBytes, stream, p, tiles);
  };
  if (p.rows <= 8) return start(head_tile_kernel<T, 1>);
  if (p.rows <= 16) return start(head_tile_kernel<T, 2>);
  if (p.rows <= 32) return start(head_tile_kernel<T, 4>);
  start(head_tile_kernel<T, 8>);
}

}  // namespace

void head_top_cuda(const HeadTopParams& p, Stream& stream) {
  if (p.top > 2 * kWarpThreads) {
    cuda_ok(cudaErrorInvalidValue, "head_top", stream);
    return;
  }
  const int64_t count = ceil_div(p.head.rows, kTileOutputs);
  auto* keys = reinterpret_cast<uint64_t*>(p.scratch);
  const Tiles tiles = {count, keys, reinterpret_cast<float*>(keys + p.rows * count * p.top)};
  with_element(p.head.dtype, [&](auto element) { launch_tiles<decltype(element)>(p, tiles, stream); });
  launch("head_top", p.top <= kWarpThreads ? head_merge_kernel<1> : head_merge_kernel<2>,
         dim3(static_cast<uint32_t>(p.rows)), kMergeThreads, 0, stream, p, tiles);
}

}  // namespace redrafter
