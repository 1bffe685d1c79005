// Sixteen int32 lanes that add up products of bytes, four to a lane. Included by *_simd.cc only. Weights are
// unsigned bytes, 16 x 4 of them to a vector; the other operand is four signed bytes, the same for all lanes.
// Sums are exact integers, so all of this gives the same on every level.
#pragma once

#include "base/simd.h"

namespace redrafter::REDRAFTER_ISA {

// What bytes of 8-bit weights have been raised by when they are multiplied. 0 where dot_bytes makes them
// signed.
#if defined(REDRAFTER_ISA_AVX512VNNI) || defined(REDRAFTER_ISA_BASE)
constexpr int32_t kByteOffset = 128;
#else
constexpr int32_t kByteOffset = 0;
#endif
constexpr int32_t kNibbleOffset = 8;

REDRAFTER_INLINE int32_t load_four(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof four);
  return four;
}

#if defined(__AVX512F__)

struct I16 {
  __m512i v;
};
struct B64 {
  __m512i v;
};
REDRAFTER_INLINE I16 i16_set(int32_t x) { return {_mm512_set1_epi32(x)}; }
REDRAFTER_INLINE F16 f16_from(I16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
REDRAFTER_INLINE B64 b64_load(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
REDRAFTER_INLINE B64 b64_low(B64 a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))}; }
REDRAFTER_INLINE B64 b64_high(B64 a) {
  return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))};
}
#if defined(REDRAFTER_ISA_AVX512VNNI)
REDRAFTER_INLINE I16 dot_bytes(I16 sum, B64 w, const int8_t* x) {
  return {_mm512_dpbusd_epi32(sum.v, w.v, _mm512_set1_epi32(load_four(x)))};
}
REDRAFTER_INLINE I16 dot_nibbles(I16 sum, B64 w, const int8_t* x) { return dot_bytes(sum, w, x); }
#else
// The magnitude of a weight times the operand with its sign: two of these products fit 16 bits, as no operand
// is -128.
REDRAFTER_INLINE I16 dot_bytes(I16 sum, B64 w, const int8_t* x) {
  const __m512i s = _mm512_xor_si512(w.v, _mm512_set1_epi8(-128)), four = _mm512_set1_epi32(load_four(x));
  const __m512i other = _mm512_mask_sub_epi8(four, _mm512_movepi8_mask(s), _mm512_setzero_si512(), four);
  const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(s), other);
  return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
}
REDRAFTER_INLINE I16 dot_nibbles(I16 sum, B64 w, const int8_t* x) {
  const __m512i pairs = _mm512_maddubs_epi16(w.v, _mm512_set1_epi32(load_four(x)));
  return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
}
#endif

#elif defined(__AVX2__)

struct I16 {
  __m256i lo, hi;
};
struct B64 {
  __m256i lo, hi;
};
REDRAFTER_INLINE I16 i16_set(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
REDRAFTER_INLINE F16 f16_from(I16 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
REDRAFTER_INLINE B64 b64_load(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
REDRAFTER_INLINE B64 b64_low(B64 a) {
  return {_mm256_and_si256(a.lo, _mm256_set1_epi8(15)), _mm256_and_si256(a.hi, _mm256_set1_epi8(15))};
}
REDRAFTER_INLINE B64 b64_high(B64 a) {
  return b64_low({_mm256_srli_epi16(a.lo, 4), _mm256_srli_epi16(a.hi, 4)});
}
// The magnitude of a weight times the operand with its sign: two of these products fit 16 bits, as no operand
// is -128.
REDRAFTER_INLINE __m256i dot_bytes_256(__m256i sum, __m256i w, __m256i four) {
  const __m256i s = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(s), _mm256_sign_epi8(four, s));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
REDRAFTER_INLINE I16 dot_bytes(I16 sum, B64 w, const int8_t* x) {
  const __m256i four = _mm256_set1_epi32(load_four(x));
  return {dot_bytes_256(sum.lo, w.lo, four), dot_bytes_256(sum.hi, w.hi, four)};
}
REDRAFTER_INLINE I16 dot_nibbles(I16 sum, B64 w, const int8_t* x) {
  const __m256i four = _mm256_set1_epi32(load_four(x)), one = _mm256_set1_epi16(1);
  const __m256i lo = _mm256_madd_epi16(_mm256_maddubs_epi16(w.lo, four), one);
  const __m256i hi = _mm256_madd_epi16(_mm256_maddubs_epi16(w.hi, four), one);
  return {_mm256_add_epi32(sum.lo, lo), _mm256_add_epi32(sum.hi, hi)};
}

#elif defined(REDRAFTER_ISA_NEON)

struct I16 {
  int32x4_t v[4];
};
struct B64 {
  uint8x16_t v[4];
};
REDRAFTER_INLINE I16 i16_set(int32_t x) {
  return {{vdupq_n_s32(x), vdupq_n_s32(x), vdupq_n_s32(x), vdupq_n_s32(x)}};
}
REDRAFTER_INLINE F16 f16_from(I16 a) {
  F16 r;
  for (int i = 0; i < 4; ++i) r.v[i] = vcvtq_f32_s32(a.v[i]);
  return r;
}
REDRAFTER_INLINE B64 b64_load(const uint8_t* p) {
  return {{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}};
}
REDRAFTER_INLINE B64 b64_low(B64 a) {
  for (int i = 0; i < 4; ++i) a.v[i] = vandq_u8(a.v[i], vdupq_n_u8(15));
  return a;
}
REDRAFTER_INLINE B64 b64_high(B64 a) {
  for (int i = 0; i < 4; ++i) a.v[i] = vshrq_n_u8(a.v[i], 4);
  return a;
}
// As signed bytes; a product of two fits 16 bits.
REDRAFTER_INLINE I16 dot_nibbles(I16 sum, B64 w, const int8_t* x) {
  const int8x16_t four = vreinterpretq_s8_s32(vdupq_n_s32(load_four(x)));
  for (int i = 0; i < 4; ++i) {
    const int8x16_t s = vreinterpretq_s8_u8(w.v[i]);
    const int32x4_t first = vpaddlq_s16(vmull_s8(vget_low_s8(s), vget_low_s8(four)));
    const int32x4_t second = vpaddlq_s16(vmull_s8(vget_high_s8(s), vget_high_s8(four)));
    sum.v[i] = vaddq_s32(sum.v[i], vpaddq_s32(first, second));
  }
  return sum;
}
REDRAFTER_INLINE I16 dot_bytes(I16 sum, B64 w, const int8_t* x) {
  for (int i = 0; i < 4; ++i) w.v[i] = veorq_u8(w.v[i], vdupq_n_u8(128));
  return dot_nibbles(sum, w, x);
}

#else

struct I16 {
  int32_t v[16];
};
struct B64 {
  uint8_t v[64];
};
REDRAFTER_INLINE I16 i16_set(int32_t x) {
  I16 r;
  for (int32_t& e : r.v) e = x;
  return r;
}
REDRAFTER_INLINE F16 f16_from(I16 a) {
  F16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = static_cast<float>(a.v[i]);
  return r;
}
REDRAFTER_INLINE B64 b64_load(const uint8_t* p) {
  B64 r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
REDRAFTER_INLINE B64 b64_low(B64 a) {
  for (uint8_t& e : a.v) e &= 15;
  return a;
}
REDRAFTER_INLINE B64 b64_high(B64 a) {
  for (uint8_t& e : a.v) e >>= 4;
  return a;
}
REDRAFTER_INLINE I16 dot_bytes(I16 sum, B64 w, const int8_t* x) {
  for (int i = 0; i < 16; ++i) {
    const uint8_t* own = w.v + 4 * i;
    sum.v[i] += own[0] * x[0] + own[1] * x[1] + own[2] * x[2] + own[3] * x[3];
  }
  return sum;
}
REDRAFTER_INLINE I16 dot_nibbles(I16 sum, B64 w, const int8_t* x) { return dot_bytes(sum, w, x); }

#endif

// a * b + c rounded once, also where there is no instruction for it: one for 32 products.
REDRAFTER_INLINE F16 f16_fused(F16 a, F16 b, F16 c) {
#if defined(__AVX512F__) || defined(__AVX2__) || defined(REDRAFTER_ISA_NEON)
  return f16_fma(a, b, c);
#else
  for (int i = 0; i < 16; ++i) c.v[i] = std::fma(a.v[i], b.v[i], c.v[i]);
  return c;
#endif
}

}  // namespace redrafter::REDRAFTER_ISA
