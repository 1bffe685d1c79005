// Selection of the best entries of a row, shared by the draft head and log-probabilities.
#pragma once

#include <cstdint>
#include <limits>

namespace redrafter {

// The `top` largest of values[0 .. count), descending, ties by lowest index; NaN is never chosen. Places that
// cannot be filled hold index -1 and -infinity.
static inline void select_top(const float* values, int64_t count, int64_t top, int32_t* index, float* value) {
  constexpr int64_t kRun = 64;  // looked through at once for one that is chosen: soon, few are
  int64_t filled = 0;
  for (int64_t first = 0; first < count; first += kRun) {
    const int64_t end = first + kRun < count ? first + kRun : count;
    if (filled == top) {
      const float least = value[top - 1];
      int32_t larger = 0;
      for (int64_t i = first; i < end; ++i) larger += values[i] > least ? 1 : 0;
      if (larger == 0) continue;
    }
    for (int64_t i = first; i < end; ++i) {
      const float v = values[i];
      if (filled == top && !(v > value[top - 1])) continue;
      if (v != v) continue;
      int64_t at = filled < top ? filled++ : top - 1;
      for (; at > 0 && v > value[at - 1]; --at) {
        value[at] = value[at - 1];
        index[at] = index[at - 1];
      }
      value[at] = v;
      index[at] = static_cast<int32_t>(i);
    }
  }
  for (; filled < top; ++filled) {
    value[filled] = -std::numeric_limits<float>::infinity();
    index[filled] = -1;
  }
}

}  // namespace redrafter
