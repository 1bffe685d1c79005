// Recurrence, mixer and residual blocks of the drafter. A block owns 16 outputs (all gates of 16 units) and
// as many rows as there are beams; its warps are slices of K, whose sums meet in shared memory, ascending.
// Each warp stages its own x, so that nothing but the last step waits for others.
#include <type_traits>

#include "ops/drafter.h"
#include "ops/strip.cuh"

namespace redrafter {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpThreads;
constexpr int kUnits = static_cast<int>(kFragmentRows);
constexpr int kMostColumns = 8, kMostRows = 8 * kMostColumns;  // of a block
constexpr int kChunkBytes = 4096;                              // of x, per warp
template <int kStrips>
using Weights = WeightStream<kStrips, kStrips == 1 ? 8 : 4>;

template <int kStrips>
constexpr int kSharedBytes = kWarps * (Weights<kStrips>::kRingBytes + kChunkBytes);

// --- rows of x, as pairs of elements k and k + 1 rounded to T, k even

template <typename T>
struct GivenRows {
  const float* x;
  int64_t cols;

  __device__ __forceinline__ uint32_t pair(int64_t row, int64_t k) const {
    const bool paired = cols % 2 == 0 && reinterpret_cast<uintptr_t>(x) % sizeof(float2) == 0;
    const float2 v = load_pair(x + row * cols, k, cols, paired);
    return T::pack(v.x, v.y);
  }
};

// The target's hidden state that a row drafts from, row h_row[lane] of h.
struct LaneHidden {
  const float* h;
  const int32_t* h_row;
  int rows_per_lane, hidden;

  explicit LaneHidden(const MixParams& p)
      : h(p.h),
        h_row(p.h_row),
        rows_per_lane(static_cast<int>(p.rows_per_lane)),
        hidden(static_cast<int>(p.hidden)) {}
  __device__ __forceinline__ const float* of(int row) const {
    return h_row == nullptr ? h : h + int64_t{h_row[row / rows_per_lane]} * hidden;
  }
};

// [h; s], h by lane.
template <typename T>
struct JoinedRows {
  LaneHidden lane;
  const float* s;

  __device__ __forceinline__ uint32_t pair(int64_t row, int64_t k) const {
    const int hidden = lane.hidden, column = static_cast<int>(k);
    const float *h = lane.of(static_cast<int>(row)), *state = s + row * hidden;
    const auto at = [&](int c) { return c < hidden ? h[c] : c < 2 * hidden ? state[c - hidden] : 0.0f; };
    const bool paired =
        hidden % 2 == 0 &&
        (reinterpret_cast<uintptr_t>(lane.h) | reinterpret_cast<uintptr_t>(s)) % sizeof(float2) == 0;
    if (!paired || column >= 2 * hidden) return T::pack(at(column), at(column + 1));
    const float2 v = *reinterpret_cast<const float2*>(column < hidden ? h + column : state + column - hidden);
    return T::pack(v.x, v.y);
  }
};

// Row token[row] of a table, whose padding gives the zeros beyond its columns.
template <typename T>
struct TableRows {
  Matrix table;
  const int32_t* token;
  int64_t token_stride;

  __device__ __forceinline__ uint32_t pair(int64_t row, int64_t k) const {
    using Other = std::conditional_t<std::is_same_v<T, Bf16>, Fp16, Bf16>;
    const auto* elements = static_cast<const uint16_t*>(table.data);
    const uint32_t two = *reinterpret_cast<const uint32_t*>(
        elements + fragment_index(token[row * token_stride], k, table.cols));
    if (table.dtype == T::kDType) return two;
    return T::pack(Other::to_float(static_cast<uint16_t>(two)),
                   Other::to_float(static_cast<uint16_t>(two >> 16)));
  }
};

__device__ __forceinline__ float table_value(const Matrix& table, int64_t n, int64_t k) {
  const uint16_t element = static_cast<const uint16_t*>(table.data)[fragment_index(n, k, table.cols)];
  return table.dtype == DType::kF16 ? Fp16::to_float(element) : Bf16::to_float(element);
}

// Stages k tiles for this warp alone, in the order multiply_strips wants. There every lane reads what it has
// put here itself, so there is nothing to synchronise.
template <int kColumns, typename Rows>
__device__ __forceinline__ void stage_chunk(uint2* chunk, const Rows& x, int64_t first_row, int rows,
                                            int64_t first_tile, int tiles) {
  constexpr int kAtOnce = 4;  // pairs of loads in flight
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads, member = lane % 4;
  const int steps = tiles * kColumns;  // a step: 8 rows of one k tile
  for (int first = 0; first < steps; first += kAtOnce) {
    uint2 value[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int tile = (first + i) / kColumns, row = (first + i) % kColumns * 8 + lane / 4;
      if (first + i >= steps || row >= rows) continue;
      const int64_t k = (first_tile + tile) * kFragmentCols + 2 * member;
      value[i] = {x.pair(first_row + row, k), x.pair(first_row + row, k + 8)};
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int tile = (first + i) / kColumns, row = (first + i) % kColumns * 8 + lane / 4;
      if (first + i >= steps || row >= rows) continue;
      chunk[(tile * rows + row) * 4 + member] = value[i];
    }
  }
}

// --- products

// What a block has of the rows and of shared memory.
struct Share {
  int64_t first_row;
  int rows;
  char* shared;

  template <int kColumns>
  static __device__ __forceinline__ Share of(int64_t all_rows) {
    const int64_t first = static_cast<int64_t>(blockIdx.y) * kMostRows;
    return {first, static_cast<int>(min(all_rows - first, int64_t{8} * kColumns)), dynamic_shared<char>()};
  }
};

// sums = the strips of w from first_strip on times the rows of x, over this warp's slice of K.
template <typename T, int kStrips, int kColumns, typename Rows>
__device__ __forceinline__ void multiply_slice(StripSums<kStrips, kColumns>& sums, const Share& share,
                                               const Matrix& w, int64_t first_strip, int64_t tiles, int slice,
                                               int slices, const Rows& x) {
  constexpr int kChunkTiles = kChunkBytes / (8 * kColumns * kStagedRowBytes);
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int64_t begin = tiles * slice / slices, end = tiles * (slice + 1) / slices;
  char* ring = share.shared + warp * Weights<kStrips>::kRingBytes;
  auto* chunk =
      reinterpret_cast<uint2*>(share.shared + kWarps * Weights<kStrips>::kRingBytes + warp * kChunkBytes);
  Weights<kStrips> weights(ring, w, first_strip, 0, 1, begin, end - begin);
  for (int64_t tile = begin; tile < end; tile += kChunkTiles) {
    const int count = static_cast<int>(min(end - tile, static_cast<int64_t>(kChunkTiles)));
    stage_chunk<kColumns>(chunk, x, share.first_row, share.rows, tile, count);
    multiply_strips<T>(sums, weights, chunk, share.rows, count);
  }
}

// Totals of a product in shared memory: [strip][row][unit], rows of units padded against bank conflicts.
template <int kColumns>
__device__ __forceinline__ int total_index(int strip, int row, int unit) {
  return (strip * 8 * kColumns + row) * (kUnits + 1) + unit;
}
template <int kStrips, int kColumns>
constexpr int kTotals = kStrips * 8 * kColumns * (kUnits + 1);

// Adds up the slices of a product, ascending. Called by all threads of the block; shared memory is free for
// `totals` then, and they are there for all.
template <int kStrips, int kColumns>
__device__ __forceinline__ void add_slices(float* totals, const StripSums<kStrips, kColumns>& sums, int rows,
                                           int slice, int slices) {
  __syncthreads();
  for (int turn = 0; turn < slices; ++turn) {
    if (turn == slice) {
      visit_outputs(sums, [&](int output, int row, float sum) {
        if (row >= rows) return;
        float& total = totals[total_index<kColumns>(output / kUnits, row, output % kUnits)];
        total = turn == 0 ? sum : total + sum;
      });
    }
    __syncthreads();
  }
}

// Calls body(columns) with as many columns of 8 rows as hold the rows of a block.
template <typename Body>
void with_columns(int64_t rows, const Body& body) {
  if (rows <= 8) return body(std::integral_constant<int, 1>{});
  if (rows <= 16) return body(std::integral_constant<int, 2>{});
  if (rows <= 32) return body(std::integral_constant<int, 4>{});
  body(std::integral_constant<int, kMostColumns>{});
}

dim3 strip_grid(int64_t outputs, int64_t rows) {
  return dim3(static_cast<uint32_t>(ceil_div(outputs, kUnits)),
              static_cast<uint32_t>(ceil_div(rows, kMostRows)));
}

// --- W x and what becomes of it

// finish(row, output, sum) for every output of w.
template <typename T, int kColumns, typename Rows, typename Finish>
__global__ __launch_bounds__(kThreads, 2) void product_kernel(Rows x, Matrix w, int64_t all_rows,
                                                              Finish finish) {
  const Share share = Share::of<kColumns>(all_rows);
  const int slice = static_cast<int>(threadIdx.x) / kWarpThreads;
  StripSums<1, kColumns> sums = {};
  multiply_slice<T>(sums, share, w, blockIdx.x, fragment_tiles(w.cols), slice, kWarps, x);
  auto* totals = reinterpret_cast<float*>(share.shared);
  add_slices(totals, sums, share.rows, slice, kWarps);
  for (int i = static_cast<int>(threadIdx.x); i < share.rows * kUnits; i += kThreads) {
    const int row = i / kUnits, unit = i % kUnits;
    const int64_t n = static_cast<int64_t>(blockIdx.x) * kUnits + unit;
    if (n < w.rows) finish(share.first_row + row, n, totals[total_index<kColumns>(0, row, unit)]);
  }
}

template <typename T, typename Rows, typename Finish>
void launch_product(const char* name, const Rows& x, const Matrix& w, int64_t rows, const Finish& finish,
                    Stream& stream) {
  with_columns(rows, [&](auto columns) {
    launch(name, product_kernel<T, columns(), Rows, Finish>, strip_grid(w.rows, rows), kThreads,
           kSharedBytes<1>, stream, x, w, rows, finish);
  });
}

__device__ __forceinline__ float bias_at(const float* bias, int64_t n) {
  return bias == nullptr ? 0.0f : bias[n];
}
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

struct StoreAffine {
  const float* bias;
  float* y;
  int64_t outputs;
  __device__ __forceinline__ void operator()(int64_t row, int64_t n, float sum) const {
    y[row * outputs + n] = sum + bias_at(bias, n);
  }
};

struct StoreResidual {
  const float *z, *bias;
  float* z_next;
  int64_t exit;
  __device__ __forceinline__ void operator()(int64_t row, int64_t n, float sum) const {
    z_next[row * exit + n] = z[row * exit + n] + silu(sum + bias_at(bias, n));
  }
};

// --- the recurrence

constexpr int kElementThreads = 256;
__device__ __forceinline__ int64_t element() {
  return static_cast<int64_t>(blockIdx.x) * kElementThreads + threadIdx.x;
}
dim3 element_grid(int64_t count) { return dim3(static_cast<uint32_t>(ceil_div(count, kElementThreads))); }

__device__ __forceinline__ float gru_state(const float (&input)[3], const float (&state)[3], float s) {
  const float r = sigmoid(input[0] + state[0]), z = sigmoid(input[1] + state[1]);
  const float n = tanhf(input[2] + r * state[2]);
  return (1.0f - z) * n + z * s;
}

// The strips of all gates of the units from 16 * strip on as strips 0, 1, ..: a row of tiles of this matrix
// is a gate long. The units of a gate must begin with a strip.
__device__ __forceinline__ Matrix gates_of(const Matrix& w, int64_t strip, int64_t hidden, int gates) {
  const int64_t row_tiles = fragment_tiles(w.cols);
  return {static_cast<char*>(w.data) + strip * row_tiles * kTileBytes, w.dtype, gates * kFragmentRows,
          ceil_div(hidden, kFragmentRows) * row_tiles * kFragmentCols};
}

// W and U may be of different dtypes, and a warp has one of them.
template <int kGates, int kColumns, typename T>
__device__ __forceinline__ void multiply_gates(StripSums<kGates, kColumns>& sums, const Share& share,
                                               const CellParams& p, const Matrix& w, bool input, int slice,
                                               int slices) {
  const Matrix gates = gates_of(w, blockIdx.x, p.hidden, kGates);
  const int64_t tiles = fragment_tiles(p.hidden);
  if (input && p.e == nullptr) {
    multiply_slice<T>(sums, share, gates, 0, tiles, slice, slices,
                      TableRows<T>{p.table, p.token, p.token_stride});
  } else {
    multiply_slice<T>(sums, share, gates, 0, tiles, slice, slices, GivenRows<T>{input ? p.e : p.s, p.hidden});
  }
}

template <int kGates, int kColumns>
__global__ __launch_bounds__(kThreads, kGates* kColumns > 12 ? 1 : 2) void cell_kernel(CellParams p) {
  const Share share = Share::of<kColumns>(p.rows);
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int slices = p.folded() ? kWarps : kWarps / 2, slice = warp % slices;
  const bool input = !p.folded() && warp < slices;
  const Matrix& w = input ? p.w : p.u;
  StripSums<kGates, kColumns> sums = {};
  if (w.dtype == DType::kF16) {
    multiply_gates<kGates, kColumns, Fp16>(sums, share, p, w, input, slice, slices);
  } else {
    multiply_gates<kGates, kColumns, Bf16>(sums, share, p, w, input, slice, slices);
  }
  auto* states = reinterpret_cast<float*>(share.shared);
  float* inputs = states + kTotals<kGates, kColumns>;
  add_slices(input ? inputs : states, sums, share.rows, slice, slices);
  for (int i = static_cast<int>(threadIdx.x); i < share.rows * kUnits; i += kThreads) {
    const int row_here = i / kUnits, unit = i % kUnits;
    const int64_t row = share.first_row + row_here, n = static_cast<int64_t>(blockIdx.x) * kUnits + unit;
    if (n >= p.hidden) continue;
    float in[kGates], state[kGates];
#pragma unroll
    for (int g = 0; g < kGates; ++g) {
      const int at = total_index<kColumns>(g, row_here, unit);
      in[g] = p.folded() ? table_value(p.table, p.token[row * p.token_stride], g * p.hidden + n)
                         : inputs[at] + bias_at(p.w_bias, g * p.hidden + n);
      state[g] = states[at] + bias_at(p.u_bias, g * p.hidden + n);
    }
    float& to = p.s_next[row * p.hidden + n];
    if constexpr (kGates == 3) {
      to = gru_state(in, state, p.s[row * p.hidden + n]);
    } else {
      to = silu(in[0] + state[0]);
    }
  }
}

template <int kGates>
void launch_cell(const CellParams& p, Stream& stream) {
  with_columns(p.rows, [&](auto columns) {
    launch("cell", cell_kernel<kGates, columns()>, strip_grid(p.hidden, p.rows), kThreads,
           kSharedBytes<kGates>, stream, p);
  });
}

// GRU of a hidden size that is not a multiple of 16, where gates begin in the midst of a strip: both products
// first, W e and U s of all rows one after the other in scratch.
__global__ void cell_gates_kernel(CellParams p) {
  const int64_t i = element(), h = p.hidden;
  if (i >= p.rows * h) return;
  const int64_t row = i / h, n = i % h;
  const float* states = p.scratch + (p.rows + row) * 3 * h + n;
  float in[3], state[3];
#pragma unroll
  for (int g = 0; g < 3; ++g) {
    in[g] = p.folded() ? table_value(p.table, p.token[row * p.token_stride], g * h + n)
                       : p.scratch[row * 3 * h + g * h + n];
    state[g] = states[g * h];
  }
  p.s_next[i] = gru_state(in, state, p.s[i]);
}

void cell_in_steps(const CellParams& p, Stream& stream) {
  const StoreAffine inputs = {p.w_bias, p.scratch, 3 * p.hidden};
  const StoreAffine states = {p.u_bias, p.scratch + p.rows * 3 * p.hidden, 3 * p.hidden};
  if (!p.folded()) {
    with_element(p.w.dtype, [&](auto element) {
      using T = decltype(element);
      if (p.e != nullptr) {
        launch_product<T>("cell", GivenRows<T>{p.e, p.hidden}, p.w, p.rows, inputs, stream);
      } else {
        launch_product<T>("cell", TableRows<T>{p.table, p.token, p.token_stride}, p.w, p.rows, inputs,
                          stream);
      }
    });
  }
  with_element(p.u.dtype, [&](auto element) {
    using T = decltype(element);
    launch_product<T>("cell", GivenRows<T>{p.s, p.hidden}, p.u, p.rows, states, stream);
  });
  launch("cell", cell_gates_kernel, element_grid(p.rows * p.hidden), kElementThreads, 0, stream, p);
}

__global__ void cell_sum_kernel(CellParams p) {
  const int64_t i = element();
  if (i >= p.rows * p.hidden) return;
  const int64_t row = i / p.hidden;
  p.s_next[i] =
      p.s[i] + (p.e != nullptr ? p.e[i] : table_value(p.table, p.token[row * p.token_stride], i % p.hidden));
}

__global__ void mix_join_kernel(MixParams p, LaneHidden hidden) {
  const int64_t i = element();
  if (i >= p.rows * 2 * p.hidden) return;
  const int64_t row = i / (2 * p.hidden), k = i % (2 * p.hidden);
  p.z[i] = k < p.hidden ? hidden.of(static_cast<int>(row))[k] : p.s[row * p.hidden + k - p.hidden];
}

}  // namespace

void cell_cuda(const CellParams& p, Stream& stream) {
  switch (p.cell) {
    case Cell::kSum:
      return launch("cell", cell_sum_kernel, element_grid(p.rows * p.hidden), kElementThreads, 0, stream, p);
    case Cell::kElman:
      return launch_cell<1>(p, stream);
    case Cell::kGru:
      return p.hidden % kUnits == 0 ? launch_cell<3>(p, stream) : cell_in_steps(p, stream);
  }
}

void mix_cuda(const MixParams& p, Stream& stream) {
  if (p.projection.data == nullptr) {
    return launch("mix", mix_join_kernel, element_grid(p.rows * 2 * p.hidden), kElementThreads, 0, stream, p,
                  LaneHidden(p));
  }
  with_element(p.projection.dtype, [&](auto element) {
    using T = decltype(element);
    launch_product<T>("mix", JoinedRows<T>{LaneHidden(p), p.s}, p.projection, p.rows,
                      StoreAffine{p.bias, p.z, p.exit}, stream);
  });
}

void residual_cuda(const ResidualParams& p, Stream& stream) {
  with_element(p.a.dtype, [&](auto element) {
    using T = decltype(element);
    launch_product<T>("residual", GivenRows<T>{p.z, p.exit}, p.a, p.rows,
                      StoreResidual{p.z, p.bias, p.z_next, p.exit}, stream);
  });
}

}  // namespace redrafter
