// Products of rows of x with a packed Matrix of any dtype, and how threads share its panels. Included by
// *_simd.cc only.
#pragma once

#include "base/threads.h"
#include "ops/panel_simd.h"
#include "ops/quant_simd.h"

namespace redrafter::REDRAFTER_ISA {

// Rows of x as a product with some matrix takes them.
struct Operand {
  const float* x;
  int64_t stride;
  const QuantGroup* groups;  // null: x itself
};

// `room`: quant_room(rows, w.cols) groups, used where w is quantised.
REDRAFTER_INLINE Operand operand(const Matrix& w, const float* x, int64_t stride, int64_t rows,
                                 QuantGroup* room, Stream& stream) {
  if (!dtype_is_quantised(w.dtype)) return {x, stride, nullptr};
  constexpr int64_t kTaskGroups = 16;
  const int64_t groups = groups_of(w.cols), cols = w.cols;
  const int32_t offset = w.dtype == DType::kQ8_0 ? kByteOffset : kNibbleOffset;
  // An element takes about as long as four multiply-adds.
  stream.threads->run((groups + kTaskGroups - 1) / kTaskGroups, 4 * rows * cols, [=](int64_t task, int) {
    const int64_t end = (task + 1) * kTaskGroups < groups ? (task + 1) * kTaskGroups : groups;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t g = task * kTaskGroups; g < end; ++g)
        quantise_group(x + row * stride + g * kGroup, cols - g * kGroup, offset, room + g * rows + row);
    }
  });
  return {x, stride, room};
}

// Panels [first, first + count) of w times all rows: store(row, panel, F16) gets each vector of outputs.
template <typename Store>
REDRAFTER_INLINE void multiply(const Operand& x, int64_t rows, const Matrix& w, int64_t first, int64_t count,
                               const Store& store) {
  if (x.groups != nullptr) return quant_multiply(x.groups, rows, w, first, count, store);
  panel_multiply(x.x, x.stride, rows, w, first, count, store);
}

// Panels [0, panels) as tasks that shrink: each takes two thirds of a thread's share of what is left, so that
// few are handed over and yet threads end together, even when one of them is held up. None has less than
// `least` panels but the last.
struct Runs {
  int64_t panels, threads, least;
  // The number of runs; where run `wanted` begins and how long it is.
  int64_t find(int64_t wanted, int64_t& first, int64_t& count) const {
    int64_t run = 0, at = 0;
    for (; at < panels; ++run) {
      int64_t n = (panels - at) * 2 / (3 * threads) / 2 * 2;
      if (n < least) n = least;
      if (n > panels - at) n = panels - at;
      if (run == wanted) first = at, count = n;
      at += n;
    }
    return run;
  }
};

// Weights worth a hand-over: reading 64 KB of them takes microseconds.
constexpr int64_t kTaskWeights = 32 << 10;

// Calls body(first panel, panels) over all panels of a matrix in parallel, for a product with `rows` rows.
template <typename Body>
REDRAFTER_INLINE void over_panels(const Matrix& w, int64_t rows, Stream& stream, const Body& body) {
  const int64_t needed = (kTaskWeights + w.cols * kLanes - 1) / (w.cols * kLanes);
  const Runs runs{(w.rows + kLanes - 1) / kLanes, stream.threads->size(), ceil_to(needed, 2)};
  int64_t none = 0;
  stream.threads->run(runs.find(-1, none, none), rows * w.rows * w.cols, [&](int64_t task, int) {
    int64_t first = 0, count = 0;
    runs.find(task, first, count);
    body(first, count);
  });
}

}  // namespace redrafter::REDRAFTER_ISA
