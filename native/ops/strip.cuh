// The shared inner loop of matrix products: a warp multiplies strips of 16 weight rows by rows of x, one
// chain of matrix instructions per output with an fp32 accumulator that starts at zero, k ascending in tiles
// of 16. Weights take the 16-row side of the instruction and rows of x its 8 columns, so a column, which is
// all that one row of x gets, never depends on its neighbours.
//
// A kernel makes a WeightStream per warp first (its copies start at once), stages the rows of x that its
// block shares (stage_rows, then a barrier), and calls multiply_strips for the k tiles that are staged, as
// often as it takes to get through K: the accumulator carries on. visit_outputs says what it then holds.
#pragma once

#include "base/device.cuh"
#include "base/ptx.cuh"
#include "base/tensor.h"

namespace redrafter {

constexpr int kTileBytes = 512;      // of one 16 x 16 tile of weights
constexpr int kStagedRowBytes = 32;  // of one row of x in one k tile

// --- x

// Staged x: for every k tile, `rows` rows of 32 bytes, the 16 elements of a row in the order in which the
// four members of a group hand them to the instruction: 0 1 8 9, 2 3 10 11, 4 5 12 13, 6 7 14 15.
constexpr int64_t staged_bytes(int64_t rows, int64_t tiles) { return rows * tiles * kStagedRowBytes; }

// x[k] and x[k + 1], zero beyond cols. `paired`: both in one load, where that is aligned.
__device__ __forceinline__ float2 load_pair(const float* x, int64_t k, int64_t cols, bool paired) {
  if (paired && k + 1 < cols) return *reinterpret_cast<const float2*>(x + k);
  return {k < cols ? x[k] : 0.0f, k + 1 < cols ? x[k + 1] : 0.0f};
}

// A thread's share of the rows of a number of k tiles: every step / rows tiles and step % rows rows, two
// pairs of elements of one row in one tile.
struct StagedItem {
  int tile, row;
  __device__ __forceinline__ void next(int rows, int step_tiles, int step_rows) {
    tile += step_tiles;
    row += step_rows;
    if (row >= rows) row -= rows, ++tile;
  }
};

// Rows of x as a block stages them; `threads` threads share the work, of which this is `thread`. threads is a
// multiple of 4.
template <typename T>
class RowStager {
 public:
  __device__ RowStager(const float* x, int64_t x_stride, int rows, int64_t cols, int thread, int threads)
      : x_(x + thread % 4 * 2),
        x_stride_(x_stride),
        cols_(cols - thread % 4 * 2),
        rows_(rows),
        thread_(thread),
        step_tiles_(threads / 4 / rows),
        step_rows_(threads / 4 % rows),
        paired_(x_stride % 2 == 0 && reinterpret_cast<uintptr_t>(x) % sizeof(float2) == 0) {}

  // Rounds k tiles [first_tile, first_tile + tiles) to T and puts them in the order above, zeros beyond
  // `cols`. `staged` is shared or global memory, 16-byte aligned. The barrier behind it is the caller's.
  __device__ void stage(void* staged, int64_t first_tile, int tiles) {
    constexpr int kAtOnce = 4;  // loads in flight
    begin(staged, first_tile, tiles);
    while (item_.tile < tiles_) {
      Pairs pairs[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) pairs[i] = load();
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) store(pairs[i]);
    }
  }

  // The same bit by bit, between other work: every step stores what the one before has loaded.
  __device__ __forceinline__ void begin(void* staged, int64_t first_tile, int tiles) {
    staged_ = static_cast<uint2*>(staged) + thread_ % 4;
    first_ = first_tile * kFragmentCols;
    tiles_ = tiles;
    item_ = {thread_ / 4 / rows_, thread_ / 4 % rows_};
  }
  __device__ __forceinline__ void step() {
    store(under_way_);
    under_way_ = load();
  }
  __device__ __forceinline__ void finish() {
    while (under_way_.to != nullptr || item_.tile < tiles_) step();
  }

 private:
  struct Pairs {
    float2 low = {0.0f, 0.0f}, high = {0.0f, 0.0f};
    uint2* to = nullptr;
  };
  __device__ __forceinline__ Pairs load() {
    Pairs pairs;
    if (item_.tile >= tiles_) return pairs;
    const float* from = x_ + item_.row * x_stride_;
    const int64_t k = first_ + item_.tile * kFragmentCols;
    pairs.low = load_pair(from, k, cols_, paired_);
    pairs.high = load_pair(from, k + 8, cols_, paired_);
    pairs.to = staged_ + (item_.tile * rows_ + item_.row) * 4;
    item_.next(rows_, step_tiles_, step_rows_);
    return pairs;
  }
  __device__ __forceinline__ static void store(const Pairs& pairs) {
    if (pairs.to == nullptr) return;
    *pairs.to = {T::pack(pairs.low.x, pairs.low.y), T::pack(pairs.high.x, pairs.high.y)};
  }

  const float* x_;
  int64_t x_stride_, cols_;
  int rows_, thread_, step_tiles_, step_rows_;
  bool paired_;
  uint2* staged_ = nullptr;
  int64_t first_ = 0;
  int tiles_ = 0;
  StagedItem item_ = {};
  Pairs under_way_;
};

template <typename T>
__device__ void stage_rows(void* staged, const float* x, int64_t x_stride, int rows, int64_t cols,
                           int64_t first_tile, int tiles, int thread, int threads) {
  RowStager<T>(x, x_stride, rows, cols, thread, threads).stage(staged, first_tile, tiles);
}

// --- weights

// One warp's stream of weight tiles through a ring in shared memory. Every lane copies the 16 bytes of a tile
// that it hands to the instruction and later reads them back itself, so there is nothing to synchronise. The
// stream is a number of runs: run r is the tiles [first_tile, first_tile + tiles) of the kStrips strips that
// begin with strip first_strip + r * strip_step. A step is one tile of each strip; kDepth steps are under
// way. Strips beyond the matrix give zeros.
// All copy_async of the warp's threads go through its groups: copies that others start join the next step,
// and are there after kDepth + 1 further steps.
template <int kStrips, int kDepth>
class WeightStream {
 public:
  // Of the ring of one warp.
  static constexpr int kRingBytes = kStrips * kDepth * kTileBytes;

  // `ring`: kRingBytes of shared memory, this warp's own. Starts the first copies.
  __device__ WeightStream(void* ring, const Matrix& w, int64_t first_strip, int64_t strip_step, int64_t runs,
                          int64_t first_tile, int64_t tiles)
      : ring_(static_cast<uint4*>(ring) + threadIdx.x % kWarpThreads),
        row_tiles_(fragment_tiles(w.cols)),
        strips_(ceil_div(w.rows, kFragmentRows)),
        strip_(first_strip),
        strip_step_(strip_step),
        runs_(tiles > 0 ? runs : 0),
        tiles_(tiles),
        left_(tiles) {
    start_ = static_cast<const uint4*>(w.data) + first_tile * kWarpThreads + threadIdx.x % kWarpThreads;
    next_ = start_ + strip_ * row_tiles_ * kWarpThreads;
#pragma unroll
    for (int i = 0; i < kDepth; ++i) {
      fetch(i);
      copy_async_commit();
    }
  }

  // What this lane hands to the instruction for the current step.
  __device__ __forceinline__ void read(uint32_t (&a)[kStrips][4]) {
    copy_async_wait<kDepth - 1>();
#pragma unroll
    for (int s = 0; s < kStrips; ++s) {
      const uint4 v = ring_[(slot_ * kStrips + s) * kWarpThreads];
      a[s][0] = v.x, a[s][1] = v.y, a[s][2] = v.z, a[s][3] = v.w;
    }
  }

  // Ends the step: its place in the ring is filled again. After the instructions that use what read() gave,
  // so that the new bytes cannot overtake the read.
  __device__ __forceinline__ void advance() {
    fetch(slot_);
    copy_async_commit();
    slot_ = slot_ + 1 == kDepth ? 0 : slot_ + 1;
  }

 private:
  __device__ __forceinline__ void fetch(int slot) {
    if (runs_ == 0) return;
#pragma unroll
    for (int s = 0; s < kStrips; ++s) {
      const bool valid = strip_ + s < strips_;
      copy_async_16(ring_ + (slot * kStrips + s) * kWarpThreads,
                    valid ? next_ + s * row_tiles_ * kWarpThreads : start_, valid);
    }
    next_ += kWarpThreads;
    if (--left_ > 0) return;
    left_ = tiles_;
    --runs_;
    strip_ += strip_step_;
    next_ = start_ + strip_ * row_tiles_ * kWarpThreads;
  }

  uint4* ring_;
  const uint4* start_;  // the first tile of a run, were it in strip 0
  const uint4* next_;   // of the first of the strips
  int64_t row_tiles_, strips_, strip_, strip_step_, runs_, tiles_, left_;
  int slot_ = 0;
};

// --- the product

// Accumulators of kStrips strips x kColumns columns of 8 rows of x.
template <int kStrips, int kColumns>
using StripSums = float[kStrips][kColumns][4];

// sums += the next `tiles` steps of the stream times the rows staged in shared memory, whose first k tile is
// that of the next step. rows <= 8 * kColumns; columns beyond `rows` stay what they are. between() is called
// once for every tile.
template <typename T, int kStrips, int kColumns, int kDepth, typename Between>
__device__ __forceinline__ void multiply_strips(StripSums<kStrips, kColumns>& sums,
                                                WeightStream<kStrips, kDepth>& weights, const void* staged,
                                                int rows, int tiles, const Between& between) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const uint2* x = static_cast<const uint2*>(staged) + lane;  // row group, member
  for (int tile = 0; tile < tiles; ++tile) {
    uint32_t a[kStrips][4];
    weights.read(a);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const uint2 b = 8 * c + lane / 4 < rows ? x[c * kWarpThreads] : uint2{0, 0};
#pragma unroll
      for (int s = 0; s < kStrips; ++s) mma_16x8x16<T>(sums[s][c], a[s], b.x, b.y);
    }
    weights.advance();
    between();
    x += rows * 4;
  }
}
template <typename T, int kStrips, int kColumns, int kDepth>
__device__ __forceinline__ void multiply_strips(StripSums<kStrips, kColumns>& sums,
                                                WeightStream<kStrips, kDepth>& weights, const void* staged,
                                                int rows, int tiles) {
  multiply_strips<T>(sums, weights, staged, rows, tiles, [] {});
}

// Calls visit(output, row, sum) for the outputs of this lane: `output` counts weight rows from the first of
// the strips, `row` rows of x. 8 lanes with the same row have 8 outputs side by side.
template <int kStrips, int kColumns, typename Visit>
__device__ __forceinline__ void visit_outputs(const StripSums<kStrips, kColumns>& sums, const Visit& visit) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
#pragma unroll
    for (int s = 0; s < kStrips; ++s) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        visit(s * 16 + i / 2 * 8 + lane / 4, c * 8 + lane % 4 * 2 + i % 2, sums[s][c][i]);
      }
    }
  }
}

}  // namespace redrafter
