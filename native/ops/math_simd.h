// exp, sigmoid and tanh on sixteen lanes; relative error below 3e-7 for exp. Included by *_simd.cc only.
#pragma once

#include "base/simd.h"

namespace redrafter::REDRAFTER_ISA {

// 2^n for lanes holding n + 1.5 * 2^23, times p: adds n to the exponent bits of p.
REDRAFTER_INLINE F16 f16_scale(F16 p, F16 shifted) {
#if defined(__AVX512F__)
  return {_mm512_castsi512_ps(
      _mm512_add_epi32(_mm512_castps_si512(p.v), _mm512_slli_epi32(_mm512_castps_si512(shifted.v), 23)))};
#elif defined(__AVX2__)
  const auto scale = [](__m256 a, __m256 s) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_castps_si256(s), 23)));
  };
  return {scale(p.lo, shifted.lo), scale(p.hi, shifted.hi)};
#elif defined(REDRAFTER_ISA_NEON)
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t exponent = vshlq_n_u32(vreinterpretq_u32_f32(shifted.v[i]), 23);
    p.v[i] = vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p.v[i]), exponent));
  }
  return p;
#else
  alignas(64) float a[kLanes], s[kLanes];
  f16_store(a, p);
  f16_store(s, shifted);
  for (int i = 0; i < kLanes; ++i) a[i] = bits_to_f32(f32_to_bits(a[i]) + (f32_to_bits(s[i]) << 23));
  return f16_load(a);
#endif
}

// Comparisons are written so that a NaN lane stays NaN.
REDRAFTER_INLINE F16 f16_clamp(F16 x, float low, float high) {
#if defined(__AVX512F__)
  return {_mm512_min_ps(_mm512_set1_ps(high), _mm512_max_ps(_mm512_set1_ps(low), x.v))};
#elif defined(__AVX2__)
  const __m256 lo = _mm256_set1_ps(low), hi = _mm256_set1_ps(high);
  return {_mm256_min_ps(hi, _mm256_max_ps(lo, x.lo)), _mm256_min_ps(hi, _mm256_max_ps(lo, x.hi))};
#elif defined(REDRAFTER_ISA_NEON)
  for (float32x4_t& e : x.v) e = vminq_f32(vdupq_n_f32(high), vmaxq_f32(vdupq_n_f32(low), e));
  return x;
#else
  alignas(64) float a[kLanes];
  f16_store(a, x);
  for (float& e : a) e = e < low ? low : e > high ? high : e;
  return f16_load(a);
#endif
}

REDRAFTER_INLINE F16 f16_max(F16 a, F16 b) {
#if defined(__AVX512F__)
  return {_mm512_max_ps(a.v, b.v)};
#elif defined(__AVX2__)
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
#elif defined(REDRAFTER_ISA_NEON)
  // Not vmaxq, which gives NaN when either is: like the others this one gives b then.
  for (int i = 0; i < 4; ++i) a.v[i] = vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]);
  return a;
#else
  alignas(64) float x[kLanes], y[kLanes];
  f16_store(x, a);
  f16_store(y, b);
  for (int i = 0; i < kLanes; ++i) x[i] = x[i] > y[i] ? x[i] : y[i];
  return f16_load(x);
#endif
}

// The largest lane.
REDRAFTER_INLINE float f16_largest(F16 a) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(a.v);
#else
  alignas(64) float lanes[kLanes];
  f16_store(lanes, a);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  }
  return lanes[0];
#endif
}

REDRAFTER_INLINE F16 f16_div(F16 a, F16 b) {
#if defined(__AVX512F__)
  return {_mm512_div_ps(a.v, b.v)};
#elif defined(__AVX2__)
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
#elif defined(REDRAFTER_ISA_NEON)
  for (int i = 0; i < 4; ++i) a.v[i] = vdivq_f32(a.v[i], b.v[i]);
  return a;
#else
  alignas(64) float x[kLanes], y[kLanes];
  f16_store(x, a);
  f16_store(y, b);
  for (int i = 0; i < kLanes; ++i) x[i] /= y[i];
  return f16_load(x);
#endif
}

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2) / 2, by the degree-6 Taylor polynomial of exp(r)
// with ln 2 split in two so that r is accurate. Inputs are clamped to where the result is a normal number.
REDRAFTER_INLINE F16 f16_exp(F16 x) {
  x = f16_clamp(x, -87.0f, 88.0f);
  const F16 magic = f16_set(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const F16 shifted = f16_fma(x, f16_set(1.44269504088896341f), magic);
  const F16 n = f16_add(shifted, f16_set(-12582912.0f));
  F16 r = f16_fma(n, f16_set(-0.693359375f), x);
  r = f16_fma(n, f16_set(2.12194440e-4f), r);
  F16 p = f16_set(1.0f / 720.0f);
  p = f16_fma(p, r, f16_set(1.0f / 120.0f));
  p = f16_fma(p, r, f16_set(1.0f / 24.0f));
  p = f16_fma(p, r, f16_set(1.0f / 6.0f));
  p = f16_fma(p, r, f16_set(0.5f));
  p = f16_fma(p, r, f16_set(1.0f));
  p = f16_fma(p, r, f16_set(1.0f));
  return f16_scale(p, shifted);
}

REDRAFTER_INLINE F16 f16_sigmoid(F16 x) {
  const F16 one = f16_set(1.0f);
  return f16_div(one, f16_add(one, f16_exp(f16_mul(x, f16_set(-1.0f)))));
}

REDRAFTER_INLINE F16 f16_silu(F16 x) {
  return f16_div(x, f16_add(f16_set(1.0f), f16_exp(f16_mul(x, f16_set(-1.0f)))));
}

// tanh(x) = 1 - 2 / (exp(2x) + 1)
REDRAFTER_INLINE F16 f16_tanh(F16 x) {
  const F16 e = f16_exp(f16_mul(x, f16_set(2.0f)));
  return f16_fma(f16_set(-2.0f), f16_div(f16_set(1.0f), f16_add(e, f16_set(1.0f))), f16_set(1.0f));
}

// The pairwise fold that every 16-lane reduction uses.
REDRAFTER_INLINE float f16_fold(F16 a) {
  alignas(64) float part[kLanes];
  f16_store(part, a);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  }
  return part[0];
}

}  // namespace redrafter::REDRAFTER_ISA
