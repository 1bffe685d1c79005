// Selection of the best entries of a row on the device (top.h says which they are): an entry and its id are
// one number, and warps sort and merge lists of those.
#pragma once

#include "base/device.cuh"

namespace redrafter {

// Larger for larger values, and of equal values for the lower id; zero is no entry, and what NaN gives.
__device__ __forceinline__ uint64_t top_key(float value, int64_t id) {
  if (value != value) return 0;
  const uint32_t bits = __float_as_uint(value + 0.0f);  // -0 and 0 are equal
  const uint32_t order = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(order) << 32 | ~static_cast<uint32_t>(id);
}

__device__ __forceinline__ int32_t top_id(uint64_t key) {
  return key == 0 ? -1 : static_cast<int32_t>(~static_cast<uint32_t>(key));
}

__device__ __forceinline__ float top_value(uint64_t key) {
  if (key == 0) return -INFINITY;
  const uint32_t order = static_cast<uint32_t>(key >> 32);
  return __uint_as_float((order & 0x80000000u) != 0 ? order & 0x7fffffffu : ~order);
}

// A list of 32 * kKeys keys is held by a warp: element e is key e / 32 of lane e % 32. All functions are
// called by whole warps.

// One step of a bitonic sorting network, whose blocks of `size` elements end up descending and ascending in
// turns.
template <int kLists, int kKeys>
__device__ __forceinline__ void exchange_keys(uint64_t (&lists)[kLists][kKeys], int size, int stride) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
#pragma unroll
  for (int list = 0; list < kLists; ++list) {
    uint64_t(&key)[kKeys] = lists[list];
    uint64_t other[kKeys];
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      other[i] = stride < kWarpThreads ? __shfl_xor_sync(kAllLanes, key[i], stride)
                                       : key[(i ^ stride / kWarpThreads) % kKeys];
    }
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      const int element = i * kWarpThreads + lane;
      const bool larger = ((element & size) == 0) == ((element & stride) == 0);
      key[i] = (key[i] > other[i]) == larger ? key[i] : other[i];
    }
  }
}

// Sorts each list, descending.
template <int kLists, int kKeys>
__device__ __forceinline__ void sort_lists(uint64_t (&lists)[kLists][kKeys]) {
#pragma unroll
  for (int size = 2; size <= kWarpThreads * kKeys; size *= 2) {
#pragma unroll
    for (int stride = size / 2; stride > 0; stride /= 2) exchange_keys(lists, size, stride);
  }
}

// Of two descending lists, the larger half of all keys, descending, in `list`.
template <int kKeys>
__device__ __forceinline__ void merge_lists(uint64_t (&list)[kKeys], const uint64_t (&with)[kKeys]) {
  uint64_t merged[1][kKeys];
#pragma unroll
  for (int i = 0; i < kKeys; ++i) {
    const uint64_t other = __shfl_xor_sync(kAllLanes, with[kKeys - 1 - i], kWarpThreads - 1);
    merged[0][i] = list[i] > other ? list[i] : other;
  }
#pragma unroll
  for (int stride = kWarpThreads * kKeys / 2; stride > 0; stride /= 2) {
    exchange_keys(merged, kWarpThreads * kKeys, stride);
  }
#pragma unroll
  for (int i = 0; i < kKeys; ++i) list[i] = merged[0][i];
}

}  // namespace redrafter
