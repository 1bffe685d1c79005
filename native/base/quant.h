// Quantised matrices: rows cut into groups of 32 weights, the last one filled up with zeros, each group with
// a scale d in f16. The two forms have the numbers and bytes of the layouts known by these names:
//   q8_0, 34 bytes: d, then 32 int8.          d = largest magnitude / 127, q = w / d to nearest, halves away
//                                             from zero; w is d q
//   q4_0, 18 bytes: d, then 16 bytes, of which byte i holds weight i in its low four bits and weight i + 16
//   in
//                   its high ones.            d = weight of largest magnitude (the first of several) / -8,
//                                             q = w / d + 8.5 cut off, at most 15; w is d (q - 8)
// q is computed with the reciprocal of d in fp32, before d is rounded to f16.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace redrafter {

constexpr int64_t kGroup = 32;

constexpr int64_t groups_of(int64_t cols) { return (cols + kGroup - 1) / kGroup; }
constexpr bool dtype_is_quantised(DType t) { return t == DType::kQ8_0 || t == DType::kQ4_0; }
constexpr int64_t group_bytes(DType t) { return t == DType::kQ8_0 ? 34 : 18; }

// Of a row of a matrix of any dtype, row-major.
static inline int64_t dtype_row_bytes(DType t, int64_t cols) {
  return dtype_is_quantised(t) ? groups_of(cols) * group_bytes(t)
                               : cols * static_cast<int64_t>(dtype_bytes(t));
}

// Writes the groups of a row to `out`. Returns the column of the first weight that is not finite or that its
// group has no finite scale for, or -1.
int64_t quantise_row(const float* weights, int64_t cols, DType to, uint8_t* out);

// The first of `count` groups whose scale is not finite, or -1.
int64_t find_bad_group(const uint8_t* groups, int64_t count, DType dtype);

}  // namespace redrafter
