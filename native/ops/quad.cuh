// Rows of floats, read and written four at a time: in one piece where the address allows it, one by one where
// not. Which thread has which element does not depend on that, so neither does an order of summation.
#pragma once

#include "base/device.cuh"

namespace redrafter {

struct Quad {
  float v[4];
};

__device__ __forceinline__ bool quad_aligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % sizeof(float4) == 0;
}

// Elements i .. i + 3 of x[0 .. count); `missing` stands for those past the end. aligned: quad_aligned(x).
// i is a multiple of 4.
__device__ __forceinline__ Quad load_quad(const float* x, int64_t i, int64_t count, bool aligned,
                                          float missing) {
  if (aligned && i + 4 <= count) {
    const float4 v = *reinterpret_cast<const float4*>(x + i);
    return {{v.x, v.y, v.z, v.w}};
  }
  Quad q;
#pragma unroll
  for (int j = 0; j < 4; ++j) q.v[j] = i + j < count ? x[i + j] : missing;
  return q;
}

__device__ __forceinline__ void store_quad(float* y, int64_t i, int64_t count, bool aligned, const Quad& q) {
  if (aligned && i + 4 <= count) {
    *reinterpret_cast<float4*>(y + i) = make_float4(q.v[0], q.v[1], q.v[2], q.v[3]);
    return;
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (i + j < count) y[i + j] = q.v[j];
  }
}

// Calls visit(i, x[i]) once for every i of begin .. end - 1, each in one of `threads` threads of which this
// is number `thread`. begin is a multiple of 4. kBatch quads of a thread are under way at a time.
template <int kBatch, typename Visit>
__device__ __forceinline__ void visit_row(const float* x, int64_t begin, int64_t end, int thread, int threads,
                                          const Visit& visit) {
  const bool aligned = quad_aligned(x);
  for (int64_t i = begin + 4 * thread; i < end; i += int64_t{4} * kBatch * threads) {
    Quad q[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      q[b] = load_quad(x, i + int64_t{4} * b * threads, end, aligned, 0.0f);
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t at = i + int64_t{4} * b * threads + j;
        if (at < end) visit(at, q[b].v[j]);
      }
    }
  }
}

}  // namespace redrafter
