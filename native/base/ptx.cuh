// The instructions CUDA C++ has no word for: matrix multiply-accumulate, matrix loads, asynchronous copies,
// loads that keep out of the caches. All need sm_80. Layouts are those of the PTX manual, "Warp-level matrix
// instructions": lane = 4 * group + member, group in 0..7, member in 0..3.
#pragma once

#include "base/device.cuh"

#if defined(REDRAFTER_SIMT)
#include "testing/simt/ptx.h"  // the same functions, emulated
#else

namespace redrafter {

// d += a * b for one warp: a is 16 x 16 (row-major), b 16 x 8 (column-major), d 16 x 8, all indices (row,
// column):
//   a[0]: (group, 2 member + 0..1)      a[1]: (group + 8, 2 member + 0..1)
//   a[2]: (group, 2 member + 8..9)      a[3]: (group + 8, 2 member + 8..9)
//   b[0]: (2 member + 0..1, group)      b[1]: (2 member + 8..9, group)
//   d[0..1]: (group, 2 member + 0..1)   d[2..3]: (group + 8, 2 member + 0..1)
// T is Bf16 or Fp16. Products are exact; their sum has fp32 precision.
template <typename T>
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (T::kDType == DType::kBF16) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Four 8 x 8 matrices of 16-bit elements from shared memory: lane i gives the address of row i % 8 of matrix
// i / 8, 16 bytes, 16-byte aligned. r[m] of a lane gets elements (group, 2 member + 0..1) of matrix m;
// transposed, elements (2 member + 0..1, group).
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// Two matrices: lanes 0..15 give the addresses (those of the others are not used but must be valid).
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];\n"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

// Starts copying 16 bytes from global to shared memory, both 16-byte aligned. With valid = false, 16 zero
// bytes are written instead and `global` is not read. The bytes are there for this thread after a wait, for
// others after a barrier behind it.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n"
               :
               : "r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
// Ends a group of the copies started since the last one; a group may be empty.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
// Waits until at most `pending` of this thread's groups are under way.
template <int pending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" : : "n"(pending) : "memory");
}

// 16 bytes that are read once: they do not displace what the first-level cache holds.
__device__ __forceinline__ uint4 load_stream_16(const void* global) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(global));
  return v;
}

}  // namespace redrafter
#endif
