// How the splits of a row come together, for attention.cu alone.
#pragma once

#include "ops/attention_tile.cuh"

namespace redrafter::attention_tile {

// What a total of maximum `old` is multiplied with when the maximum becomes `now`; exactly 1 when it stays.
__device__ __forceinline__ float decay(float old, float now) { return old == now ? 1.0f : expf(old - now); }

// Takes a split into the totals of those before it; outputs become output * before + the split's * split.
struct Factors {
  float before, split;
};
__device__ __forceinline__ Factors merge_totals(float& largest, float& sum, float split_largest,
                                                float split_sum) {
  const float now = split_largest > largest ? split_largest : largest;
  const Factors f{decay(largest, now), decay(split_largest, now)};
  sum = fmaf(split_sum, f.split, sum * f.before);
  largest = now;
  return f;
}
__device__ __forceinline__ float merge_output(float before, float split, Factors f) {
  return fmaf(split, f.split, before * f.before);
}
// Zero has one sign: which zeros were added on the way may differ.
__device__ __forceinline__ float finished(float output, float sum) { return output / sum + 0.0f; }

// Merges all splits of one row and head into two elements of y, from i on. kAtOnce are read before any is
// used, to wait once for all of them.
template <int kAtOnce>
__device__ __forceinline__ void merge_splits(const AttentionParams& p, const Work& work, int64_t row,
                                             int64_t head, int64_t i) {
  const int64_t dim = p.kv.head_dim, pair = (row - work.first_row) * p.heads + head;
  const int splits = static_cast<int>(split_count(int64_t{p.batch.position[row]} + 1));
  const float2* totals = work.totals + pair * work.splits;
  const float* outputs = work.outputs + pair * work.splits * dim + i;
  float largest = -INFINITY, sum = 0.0f;
  float2 total{0.0f, 0.0f};
#pragma unroll 1
  for (int begin = 0; begin < splits; begin += kAtOnce) {
    float2 of_split[kAtOnce], output[kAtOnce];
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
      if (begin + s >= splits) continue;
      of_split[s] = totals[begin + s];
      output[s] = *reinterpret_cast<const float2*>(outputs + (begin + s) * dim);
    }
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
      if (begin + s >= splits) continue;
      const Factors f = merge_totals(largest, sum, of_split[s].x, of_split[s].y);
      total.x = merge_output(total.x, output[s].x, f);
      total.y = merge_output(total.y, output[s].y, f);
    }
  }
  *reinterpret_cast<float2*>(p.y + (row * p.heads + head) * dim + i) =
      float2{finished(total.x, sum), finished(total.y, sum)};
}

// Whether this block is the last of a tile's splits to end: it alone then sees what all of them left.
inline __device__ bool last_to_end(const Work& work, const Tile& tile, int64_t counter) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(work.arrivals + counter, 1u) + 1 == split_count(tile.seen);
    if (last) work.arrivals[counter] = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}

inline __device__ void merge_tile(const AttentionParams& p, const Work& work, const Tile& tile) {
  const Heads heads = heads_of_block(p, work);
  const int pieces = static_cast<int>(p.kv.head_dim / 2);
#pragma unroll 1
  for (int item = threadIdx.x; item < tile.count * heads.count * pieces; item += blockDim.x) {
    const int pair = item / pieces, head = heads.first + pair % heads.count;
    if (head < heads.end) merge_splits<4>(p, work, tile.row + pair / heads.count, head, item % pieces * 2);
  }
}

}  // namespace redrafter::attention_tile
