// CUDA C++ for the host: what a .cu file may say, compiled as plain C++. A launch runs its blocks one after
// another, each thread of a block on a stack of its own; threads change places where they wait for each
// other, in an order drawn from a seed. What goes wrong ends the launch and is left in the stream, as a
// failed CUDA call is. Nothing here is for other files than those that kernels are written in; tests use
// control.h.
#pragma once

#include <math.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "base/tensor.h"
#include "testing/simt/runtime.h"

// --- words of the language

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// All variables of this kind lie together, so that they can be found (variables.h) and filled anew for every
// block. GCC forgets the section of a variable in a template, but not that it is not initialised. An
// alignment is written
// `__shared__ __align__(16) T name[n]`.
#if defined(__clang__)
#define __shared__ static __attribute__((section("simt_shared")))
#else
#define __shared__ static __attribute__((noinit))
#endif

#define threadIdx (::redrafter::simt::thread_index())
#define blockIdx (::redrafter::simt::block_index())
#define blockDim (::redrafter::simt::block_size())
#define gridDim (::redrafter::simt::grid_size())
constexpr int warpSize = 32;

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define REDRAFTER_SIMT_VECTORS(T, name)                         \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };            \
  struct alignas(4 * sizeof(T)) name##4 { T x, y, z, w; };      \
  constexpr name##2 make_##name##2(T x, T y) { return {x, y}; } \
  constexpr name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
REDRAFTER_SIMT_VECTORS(int, int)
REDRAFTER_SIMT_VECTORS(unsigned, uint)
REDRAFTER_SIMT_VECTORS(float, float)
REDRAFTER_SIMT_VECTORS(unsigned short, ushort)
#undef REDRAFTER_SIMT_VECTORS

// --- what the emulator does, in the files beside this one

namespace redrafter::simt {

// The indices of the thread that runs. It never sees another, hence const: a compiler may call once for many
// uses.
__attribute__((const)) uint64_t thread_xy();
__attribute__((const)) unsigned thread_z();
__attribute__((const)) uint64_t block_xy();
__attribute__((const)) unsigned block_z();
__attribute__((const)) uint64_t block_size_xy();
__attribute__((const)) unsigned block_size_z();
__attribute__((const)) uint64_t grid_size_xy();
__attribute__((const)) unsigned grid_size_z();

inline uint3 index_of(uint64_t xy, unsigned z) {
  return {static_cast<unsigned>(xy), static_cast<unsigned>(xy >> 32), z};
}
inline uint3 thread_index() { return index_of(thread_xy(), thread_z()); }
inline uint3 block_index() { return index_of(block_xy(), block_z()); }
inline uint3 block_size() { return index_of(block_size_xy(), block_size_z()); }
inline uint3 grid_size() { return index_of(grid_size_xy(), grid_size_z()); }

void launch(const char* name, dim3 grid, dim3 block, size_t shared_bytes, Stream& stream,
            void (*body)(const void* closure), const void* closure, size_t closure_bytes);

// Runs body() in every thread of every block, and returns when all have ended.
template <typename Body>
void launch(const char* name, dim3 grid, dim3 block, size_t shared_bytes, Stream& stream, const Body& body) {
  launch(
      name, grid, block, shared_bytes, stream,
      [](const void* closure) { (*static_cast<const Body*>(closure))(); }, &body, sizeof body);
}

void* dynamic_shared();

enum class Shuffle { kIndex, kXor, kUp, kDown };
uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t bits, int operand, int width);

template <typename T>
T shuffle_value(Shuffle kind, unsigned mask, T value, int operand, int width) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 32 or 64 bits");
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  return std::bit_cast<T>(static_cast<Bits>(shuffle(kind, mask, std::bit_cast<Bits>(value), operand, width)));
}

}  // namespace redrafter::simt

// --- threads waiting for each other

void __syncthreads();
int __syncthreads_or(int predicate);
int __syncthreads_and(int predicate);
int __syncthreads_count(int predicate);
void __syncwarp(unsigned mask = 0xffffffffu);
unsigned __ballot_sync(unsigned mask, int predicate);
int __any_sync(unsigned mask, int predicate);
int __all_sync(unsigned mask, int predicate);

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  return redrafter::simt::shuffle_value(redrafter::simt::Shuffle::kIndex, mask, value, lane, width);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  return redrafter::simt::shuffle_value(redrafter::simt::Shuffle::kXor, mask, value, lanes, width);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return redrafter::simt::shuffle_value(redrafter::simt::Shuffle::kUp, mask, value, static_cast<int>(delta),
                                        width);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return redrafter::simt::shuffle_value(redrafter::simt::Shuffle::kDown, mask, value, static_cast<int>(delta),
                                        width);
}

// --- memory

void __threadfence();
void __threadfence_block();

// Each gives the value before.
#define REDRAFTER_SIMT_ATOMICS(T)               \
  T atomicAdd(T* address, T value);             \
  T atomicMax(T* address, T value);             \
  T atomicMin(T* address, T value);             \
  T atomicExch(T* address, T value);            \
  T atomicCAS(T* address, T expected, T value); \
  T atomicOr(T* address, T value);              \
  T atomicAnd(T* address, T value);
REDRAFTER_SIMT_ATOMICS(int)
REDRAFTER_SIMT_ATOMICS(unsigned)
REDRAFTER_SIMT_ATOMICS(unsigned long long)
#undef REDRAFTER_SIMT_ATOMICS
unsigned atomicSub(unsigned* address, unsigned value);
unsigned atomicInc(unsigned* address, unsigned limit);
float atomicAdd(float* address, float value);
float atomicExch(float* address, float value);

template <typename T>
T __ldg(const T* address) {
  return *address;
}

// --- arithmetic

inline unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
inline int __float_as_int(float v) { return std::bit_cast<int>(v); }
inline float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }
inline float __int_as_float(int v) { return std::bit_cast<float>(v); }
inline int __popc(unsigned v) { return std::popcount(v); }
inline int __popcll(unsigned long long v) { return std::popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __clz(int v) { return std::countl_zero(static_cast<unsigned>(v)); }
inline int __clzll(long long v) { return std::countl_zero(static_cast<unsigned long long>(v)); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * uint64_t{b} >> 32);
}
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }

#define REDRAFTER_SIMT_MIN_MAX(T)                     \
  constexpr T min(T a, T b) { return b < a ? b : a; } \
  constexpr T max(T a, T b) { return a < b ? b : a; }
REDRAFTER_SIMT_MIN_MAX(int)
REDRAFTER_SIMT_MIN_MAX(unsigned)
REDRAFTER_SIMT_MIN_MAX(long)
REDRAFTER_SIMT_MIN_MAX(unsigned long)
REDRAFTER_SIMT_MIN_MAX(long long)
REDRAFTER_SIMT_MIN_MAX(unsigned long long)
#undef REDRAFTER_SIMT_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }  // a NaN gives way to a number
inline float max(float a, float b) { return fmaxf(a, b); }
