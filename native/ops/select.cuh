// Selection of the largest of many keys (top.cuh) by one block. All functions are called by all threads of
// the block, whose number is a multiple of 32 and at most 1024; results are the same in every thread unless
// stated.
#pragma once

#include "base/device.cuh"
#include "ops/top.cuh"

namespace redrafter {

constexpr int kMostWarps = 32;
constexpr int kCells = 64;  // of a histogram

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x % kWarpThreads); }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x / kWarpThreads); }
__device__ __forceinline__ int warp_count() { return static_cast<int>(blockDim.x / kWarpThreads); }

// --- reductions, exact and so in any order

struct Larger {
  __device__ __forceinline__ uint64_t operator()(uint64_t a, uint64_t b) const { return a > b ? a : b; }
};
struct Smaller {
  __device__ __forceinline__ uint64_t operator()(uint64_t a, uint64_t b) const { return a < b ? a : b; }
};
struct Sum {
  __device__ __forceinline__ uint64_t operator()(uint64_t a, uint64_t b) const { return a + b; }
};

template <typename Merge>
__device__ __forceinline__ uint64_t warp_reduce(uint64_t v, Merge merge) {
#pragma unroll
  for (int lanes = kWarpThreads / 2; lanes > 0; lanes /= 2) {
    v = merge(v, __shfl_xor_sync(kAllLanes, v, lanes));
  }
  return v;
}

// parts: [kMostWarps] shared. `neutral` changes nothing when merged.
template <typename Merge>
__device__ __forceinline__ uint64_t block_reduce(uint64_t v, Merge merge, uint64_t neutral, uint64_t* parts) {
  v = warp_reduce(v, merge);
  __syncthreads();  // parts may still be read from the time before
  if (lane_index() == 0) parts[warp_index()] = v;
  __syncthreads();
  return warp_reduce(lane_index() < warp_count() ? parts[lane_index()] : neutral, merge);
}

// --- running sums

// Sum over this and lower lanes.
__device__ __forceinline__ uint64_t running_sum(uint64_t v) {
#pragma unroll
  for (int lanes = 1; lanes < kWarpThreads; lanes *= 2) {
    const uint64_t lower = __shfl_up_sync(kAllLanes, v, static_cast<unsigned>(lanes));
    if (lane_index() >= lanes) v += lower;
  }
  return v;
}

// The first of 32 values, one a lane, at which the running sum passes `target`, and the sum of those before
// it. The sum of all passes it.
struct Passed {
  int at;
  uint64_t before;
};
__device__ __forceinline__ Passed first_past(uint64_t v, uint64_t target) {
  const uint64_t sum = running_sum(v);
  const int lane = __ffs(static_cast<int>(__ballot_sync(kAllLanes, sum > target))) - 1;
  return {lane, __shfl_sync(kAllLanes, sum - v, lane)};
}
// The same for cells[0 .. kCells).
template <typename Count>
__device__ __forceinline__ Passed first_cell_past(const Count* cells, uint64_t target) {
  const uint64_t left = cells[2 * lane_index()], right = cells[2 * lane_index() + 1];
  const Passed pair = first_past(left + right, target);
  const uint64_t chosen_left = __shfl_sync(kAllLanes, left, pair.at);
  if (pair.before + chosen_left > target) return {2 * pair.at, pair.before};
  return {2 * pair.at + 1, pair.before + chosen_left};
}

// --- the largest keys

struct SelectShared {
  uint32_t cells[kCells];
  uint64_t parts[kMostWarps];
  uint32_t found;
};

// A key that at least `top` and at most `capacity` of the keys reach. key(i): distinct, or 0 for none; those
// in [low, high] are looked at, which are `top` at least and more than 0. top <= capacity.
template <typename Key>
__device__ uint64_t narrow(int64_t count, const Key& key, uint64_t low, uint64_t high, uint64_t top,
                           uint64_t capacity, SelectShared& s) {
  uint64_t above = 0;  // keys above `high`
  for (;;) {
    const int bits = 64 - __clzll(static_cast<long long>(high - low));
    const int shift = bits > 6 ? bits - 6 : 0;
    __syncthreads();
    for (int cell = static_cast<int>(threadIdx.x); cell < kCells; cell += static_cast<int>(blockDim.x)) {
      s.cells[cell] = 0;
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
      const uint64_t k = key(i);
      if (k >= low && k <= high) atomicAdd(&s.cells[kCells - 1 - static_cast<int>((k - low) >> shift)], 1u);
    }
    __syncthreads();
    const Passed cell = first_cell_past(s.cells, top - above - 1);
    const uint64_t inside = s.cells[cell.at];
    const uint64_t least = low + (static_cast<uint64_t>(kCells - 1 - cell.at) << shift);
    above += cell.before;
    if (above + inside <= capacity) return least;
    low = least;
    const uint64_t last = (uint64_t{1} << shift) - 1;  // of the cell, from its start
    if (high - low > last) high = low + last;
  }
}

// Writes the keys of at least `least` to candidates[0 .. capacity) in any order; returns how many there are,
// which may be more.
template <typename Key>
__device__ uint32_t collect(int64_t count, const Key& key, uint64_t least, uint64_t* candidates,
                            uint32_t capacity, SelectShared& s) {
  __syncthreads();
  if (threadIdx.x == 0) s.found = 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    const uint64_t k = key(i);
    if (k < least) continue;
    const uint32_t at = atomicAdd(&s.found, 1u);
    if (at < capacity) candidates[at] = k;
  }
  __syncthreads();
  return s.found;
}

// Candidates that select_largest needs room for.
constexpr int64_t select_capacity(int64_t top) { return top < 64 ? 128 : 2 * top; }

// Calls take(rank, key) in one thread for each of the `top` largest of key(0) .. key(count - 1), rank 0 being
// the largest, and returns how many there are: fewer than `top` when keys run out. Keys are distinct, or 0
// for none. candidates: [select_capacity(top)] shared. top > 0.
template <typename Key, typename Take>
__device__ int64_t select_largest(int64_t count, int64_t top, const Key& key, const Take& take,
                                  uint64_t* candidates, SelectShared& s) {
  const auto wanted = static_cast<uint64_t>(top);
  const auto capacity = static_cast<uint32_t>(select_capacity(top));
  uint64_t high = ~uint64_t{0}, least = 1;
  if (count > capacity) {
    // The largest keys of the threads are some of all: as many reach their top-th as are wanted.
    uint64_t own = 0;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) own = Larger{}(own, key(i));
    high = block_reduce(own, Larger{}, 0, s.parts);
    const uint64_t low = block_reduce(own > 0 ? own : high, Smaller{}, ~uint64_t{0}, s.parts);
    if (block_reduce(own > 0 ? 1 : 0, Sum{}, 0, s.parts) >= wanted) {
      const auto of_thread = [own](int64_t) { return own; };
      least = narrow(blockDim.x, of_thread, low, high, wanted, wanted + wanted / 2, s);
    }
  }
  uint32_t found = collect(count, key, least, candidates, capacity, s);
  if (found > capacity) {
    least = narrow(count, key, least, high, wanted, capacity, s);
    found = collect(count, key, least, candidates, capacity, s);
  }
  for (uint32_t i = threadIdx.x; i < found; i += blockDim.x) {
    const uint64_t k = candidates[i];
    int64_t rank = 0;
    for (uint32_t other = 0; other < found; ++other) rank += candidates[other] > k ? 1 : 0;
    if (rank < top) take(rank, k);
  }
  return found < top ? found : top;
}

}  // namespace redrafter
