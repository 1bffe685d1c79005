// What a kernel is written with, besides CUDA C++ itself: launches, shared memory, 16-bit elements, warp
// reductions. Included by .cu files only. The same files also compile as plain C++ against the SIMT emulator
// of the tests (native/testing/simt), which is why launches are a function and inline assembly lives in
// base/ptx.cuh alone.
#pragma once

#include <cstdint>
#include <tuple>

#if defined(REDRAFTER_SIMT)
#include "testing/simt/simt.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

#include "base/dtype.h"
#include "base/tensor.h"

namespace redrafter {

constexpr int kWarpThreads = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

// Notes a failed CUDA call: the first one on a stream stays, later ops of the stream do nothing.
inline bool cuda_ok(cudaError_t status, const char* what, Stream& stream) {
  if (status == cudaSuccess) return stream.error == nullptr;
  if (stream.error == nullptr) {
    stream.error = cudaGetErrorString(status);
    stream.failed = what;
  }
  return false;
}

// Runs kernel<<<grid, block, shared_bytes, stream>>>(args...). `name` is for error messages. Nothing runs
// when the grid is empty or the stream has failed.
template <typename... Params, typename... Args>
void launch(const char* name, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
            Stream& stream, Args... args) {
  if (stream.error != nullptr || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#if defined(REDRAFTER_SIMT)
  simt::launch(name, grid, block, shared_bytes, stream, [=] { kernel(Params(args)...); });
#else
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking &&
      !cuda_ok(
          cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
          name, stream)) {
    return;
  }
  std::tuple<Params...> values(static_cast<Params>(args)...);
  std::apply(
      [&](auto&... value) {
        void* pointers[] = {&value...};
        cuda_ok(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers, shared_bytes,
                                 static_cast<cudaStream_t>(stream.cuda)),
                name, stream);
      },
      values);
#endif
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The dynamic shared memory of the block, aligned to 128 bytes.
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
#if defined(REDRAFTER_SIMT)
  return static_cast<T*>(simt::dynamic_shared());
#else
  extern __shared__ __align__(128) unsigned char redrafter_dynamic_shared[];
  return reinterpret_cast<T*>(redrafter_dynamic_shared);
#endif
}

// Tags for the two element types of weights and of K and V; stored as uint16_t. Conversions round to nearest,
// ties to even; pack() puts `lo` in the low half, as matrix fragments want it.
struct Bf16 {
  static constexpr DType kDType = DType::kBF16;
#if defined(REDRAFTER_SIMT)
  static float to_float(uint16_t v) { return bf16_to_f32(v); }
  static uint16_t from_float(float v) { return f32_to_bf16(v); }
#else
  static __device__ __forceinline__ float to_float(uint16_t v) {
    return __uint_as_float(static_cast<uint32_t>(v) << 16);
  }
  static __device__ __forceinline__ uint16_t from_float(float v) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(v));
  }
#endif
  static __device__ __forceinline__ uint32_t pack(float lo, float hi) {
    return static_cast<uint32_t>(from_float(lo)) | static_cast<uint32_t>(from_float(hi)) << 16;
  }
};

struct Fp16 {
  static constexpr DType kDType = DType::kF16;
#if defined(REDRAFTER_SIMT)
  static float to_float(uint16_t v) { return f16_to_f32(v); }
  static uint16_t from_float(float v) { return f32_to_f16(v); }
#else
  static __device__ __forceinline__ float to_float(uint16_t v) { return __half2float(__ushort_as_half(v)); }
  static __device__ __forceinline__ uint16_t from_float(float v) {
    return __half_as_ushort(__float2half_rn(v));
  }
#endif
  static __device__ __forceinline__ uint32_t pack(float lo, float hi) {
    return static_cast<uint32_t>(from_float(lo)) | static_cast<uint32_t>(from_float(hi)) << 16;
  }
};

// Calls body(Bf16{}) or body(Fp16{}).
template <typename Body>
void with_element(DType dtype, const Body& body) {
  if (dtype == DType::kF16) {
    body(Fp16{});
  } else {
    body(Bf16{});
  }
}

// The sum over a warp in every lane; the order is that of a butterfly, the same whatever the values.
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(kAllLanes, v, offset);
  return v;
}

}  // namespace redrafter
