// Sixteen fp32 lanes, the same on every instruction set, so that an op written once has the same order of
// operations everywhere it is compiled. Files named *_simd.cc are compiled once per level (see
// CMakeLists.txt) and are the only ones to include this header. Everything here is force-inlined or static: a
// function with external linkage compiled for AVX-512 could otherwise replace its portable twin at link time.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/dtype.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(REDRAFTER_ISA_NEON)
#include <arm_neon.h>
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define REDRAFTER_INLINE static __forceinline
#else
#define REDRAFTER_INLINE static inline __attribute__((always_inline))
#endif

// Before each of nested loops over an array of registers. GCC unrolls them by itself, but so late that the
// array is memory around the loops that use it.
#if defined(__GNUC__) && !defined(__clang__)
#define REDRAFTER_UNROLL _Pragma("GCC unroll 16")
#else
#define REDRAFTER_UNROLL
#endif

// The namespace of this compilation: isa_avx512vnni, isa_avx512, isa_avx2, isa_neon or isa_base.
#if defined(REDRAFTER_ISA_AVX512VNNI)
#define REDRAFTER_ISA isa_avx512vnni
#elif defined(REDRAFTER_ISA_AVX512)
#define REDRAFTER_ISA isa_avx512
#elif defined(REDRAFTER_ISA_AVX2)
#define REDRAFTER_ISA isa_avx2
#elif defined(REDRAFTER_ISA_NEON)
#define REDRAFTER_ISA isa_neon
#else
#define REDRAFTER_ISA isa_base
#endif

namespace redrafter::REDRAFTER_ISA {

constexpr int kLanes = 16;

#if defined(__AVX512F__)

struct F16 {
  __m512 v;
};
REDRAFTER_INLINE F16 f16_zero() { return {_mm512_setzero_ps()}; }
REDRAFTER_INLINE F16 f16_set(float x) { return {_mm512_set1_ps(x)}; }
REDRAFTER_INLINE F16 f16_load(const float* p) { return {_mm512_loadu_ps(p)}; }
REDRAFTER_INLINE void f16_store(float* p, F16 a) { _mm512_storeu_ps(p, a.v); }
// a * b + c, rounded once.
REDRAFTER_INLINE F16 f16_fma(F16 a, F16 b, F16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
REDRAFTER_INLINE F16 f16_add(F16 a, F16 b) { return {_mm512_add_ps(a.v, b.v)}; }
REDRAFTER_INLINE F16 f16_mul(F16 a, F16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
REDRAFTER_INLINE F16 f16_load_bf16(const uint16_t* p) {
  // Element i to the upper half of lane i and zero to the lower, by one instruction.
  const __m512i half = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  const __m512i from =
      _mm512_set_epi32(15 << 16, 14 << 16, 13 << 16, 12 << 16, 11 << 16, 10 << 16, 9 << 16, 8 << 16, 7 << 16,
                       6 << 16, 5 << 16, 4 << 16, 3 << 16, 2 << 16, 1 << 16, 0);
  return {_mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaau, from, half))};
}
REDRAFTER_INLINE F16 f16_load_half(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}

#elif defined(__AVX2__)

struct F16 {
  __m256 lo, hi;
};
REDRAFTER_INLINE F16 f16_zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
REDRAFTER_INLINE F16 f16_set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
REDRAFTER_INLINE F16 f16_load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
REDRAFTER_INLINE void f16_store(float* p, F16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
REDRAFTER_INLINE F16 f16_fma(F16 a, F16 b, F16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
REDRAFTER_INLINE F16 f16_add(F16 a, F16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
REDRAFTER_INLINE F16 f16_mul(F16 a, F16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
REDRAFTER_INLINE F16 f16_load_bf16(const uint16_t* p) {
  const __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i b = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}
REDRAFTER_INLINE F16 f16_load_half(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}

#elif defined(REDRAFTER_ISA_NEON)

struct F16 {
  float32x4_t v[4];
};
REDRAFTER_INLINE F16 f16_set(float x) {
  return {{vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x)}};
}
REDRAFTER_INLINE F16 f16_zero() { return f16_set(0.0f); }
REDRAFTER_INLINE F16 f16_load(const float* p) {
  return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}
REDRAFTER_INLINE void f16_store(float* p, F16 a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
REDRAFTER_INLINE F16 f16_fma(F16 a, F16 b, F16 c) {
  for (int i = 0; i < 4; ++i) c.v[i] = vfmaq_f32(c.v[i], a.v[i], b.v[i]);
  return c;
}
REDRAFTER_INLINE F16 f16_add(F16 a, F16 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vaddq_f32(a.v[i], b.v[i]);
  return a;
}
REDRAFTER_INLINE F16 f16_mul(F16 a, F16 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vmulq_f32(a.v[i], b.v[i]);
  return a;
}
REDRAFTER_INLINE F16 f16_load_bf16(const uint16_t* p) {
  F16 r;
  for (int i = 0; i < 4; ++i) r.v[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16));
  return r;
}
REDRAFTER_INLINE F16 f16_load_half(const uint16_t* p) {
  F16 r;
  for (int i = 0; i < 4; ++i) r.v[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)));
  return r;
}

#else  // Portable: fixed-length loops that any compiler vectorises as far as its target allows.

struct F16 {
  float v[16];
};
REDRAFTER_INLINE F16 f16_set(float x) {
  F16 r;
  for (float& e : r.v) e = x;
  return r;
}
REDRAFTER_INLINE F16 f16_zero() { return f16_set(0.0f); }
REDRAFTER_INLINE F16 f16_load(const float* p) {
  F16 r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
REDRAFTER_INLINE void f16_store(float* p, F16 a) { std::memcpy(p, a.v, sizeof a.v); }
// Without a fused instruction the product is rounded too; the order of operations stays the same.
REDRAFTER_INLINE F16 f16_fma(F16 a, F16 b, F16 c) {
  for (int i = 0; i < 16; ++i) c.v[i] += a.v[i] * b.v[i];
  return c;
}
REDRAFTER_INLINE F16 f16_add(F16 a, F16 b) {
  for (int i = 0; i < 16; ++i) a.v[i] += b.v[i];
  return a;
}
REDRAFTER_INLINE F16 f16_mul(F16 a, F16 b) {
  for (int i = 0; i < 16; ++i) a.v[i] *= b.v[i];
  return a;
}
REDRAFTER_INLINE F16 f16_load_bf16(const uint16_t* p) {
  F16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = bf16_to_f32(p[i]);
  return r;
}
REDRAFTER_INLINE F16 f16_load_half(const uint16_t* p) {
  F16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = f16_to_f32(p[i]);
  return r;
}

#endif

// Asks for a line of memory that will be read soon, any address; nothing depends on whether it comes.
REDRAFTER_INLINE void f16_prefetch(const void* p) {
#if defined(__AVX512F__) || defined(__AVX2__)
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
#elif defined(_MSC_VER) && !defined(__clang__)
  (void)p;
#else
  __builtin_prefetch(p);
#endif
}

// Weight element types, as tags that pick the load.
struct WF32 {
  using Store = float;
  REDRAFTER_INLINE F16 load(const float* p) { return f16_load(p); }
};
struct WF16 {
  using Store = uint16_t;
  REDRAFTER_INLINE F16 load(const uint16_t* p) { return f16_load_half(p); }
};
struct WBF16 {
  using Store = uint16_t;
  REDRAFTER_INLINE F16 load(const uint16_t* p) { return f16_load_bf16(p); }
};

}  // namespace redrafter::REDRAFTER_ISA
