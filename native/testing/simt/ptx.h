// base/ptx.cuh on the host: the same functions with the same contracts.
#pragma once

#include "base/device.cuh"

namespace redrafter {
namespace simt {

// Small values by value: they stay in registers.
struct Floats4 {
  float v[4];
};
struct Words4 {
  uint32_t v[4];
};
Floats4 mma_16x8x16(DType dtype, Floats4 d, Words4 a, uint32_t b0, uint32_t b1);
Words4 ldmatrix(int matrices, bool transposed, const void* row);
void copy_async(void* shared, const void* global, bool valid);
void copy_async_commit();
void copy_async_wait(int pending);
void check_aligned_16(const void* address, const char* what);

}  // namespace simt

template <typename T>
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const simt::Floats4 sum =
      simt::mma_16x8x16(T::kDType, {{d[0], d[1], d[2], d[3]}}, {{a[0], a[1], a[2], a[3]}}, b0, b1);
  for (int i = 0; i < 4; ++i) d[i] = sum.v[i];
}

__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  const simt::Words4 words = simt::ldmatrix(4, false, row);
  for (int i = 0; i < 4; ++i) r[i] = words.v[i];
}
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  const simt::Words4 words = simt::ldmatrix(4, true, row);
  for (int i = 0; i < 4; ++i) r[i] = words.v[i];
}
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  const simt::Words4 words = simt::ldmatrix(2, false, row);
  for (int i = 0; i < 2; ++i) r[i] = words.v[i];
}

__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid = true) {
  simt::copy_async(shared, global, valid);
}
__device__ __forceinline__ void copy_async_commit() { simt::copy_async_commit(); }
template <int pending>
__device__ __forceinline__ void copy_async_wait() {
  simt::copy_async_wait(pending);
}

__device__ __forceinline__ uint4 load_stream_16(const void* global) {
  simt::check_aligned_16(global, "load_stream_16");
  uint4 v;
  std::memcpy(&v, global, sizeof v);
  return v;
}

}  // namespace redrafter
