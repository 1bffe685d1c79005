// matmul for few rows, and which kernel takes what. There are two, with one order of summation (matmul.h):
// the one here for up to 8 rows whose x fits into shared memory, that of matmul_panel.cuh for the rest.
#include <algorithm>

#include "ops/matmul.h"
#include "ops/matmul_outputs.cuh"
#include "ops/matmul_panel.cuh"
#include "ops/strip.cuh"

namespace redrafter {
namespace {

constexpr int kFewRows = 8;
constexpr int64_t kFewStagedBytes = 64 * 1024;
constexpr int64_t kFewBlocks = 264;  // two for each multiprocessor of an H100
using FewStream = WeightStream<1, 6>;
constexpr int64_t kFewSumBytes = 2 * kThreads * sizeof(float4);
constexpr int64_t kFewRingBytes = kWarps * FewStream::kRingBytes;

// The 8 warps of a block are the slices of one group of strips (8 strips when there is one slice); their sums
// meet in shared memory. Blocks go on to further groups, x stays where it is.
template <typename T>
__global__ __launch_bounds__(kThreads, 2) void matmul_few_kernel(MatmulParams p, int splits) {
  char* shared = dynamic_shared<char>();
  auto* slice_sums = reinterpret_cast<float4*>(shared + kFewRingBytes);  // [2][kWarps][32]
  char* staged = shared + kFewRingBytes + kFewSumBytes;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarpThreads, lane = thread % kWarpThreads;
  const int rows = static_cast<int>(p.rows), tiles = static_cast<int>(fragment_tiles(p.w.cols));
  const int group = kWarps / splits, slice = warp % splits;  // strips of a block at a time
  const int begin = tiles * slice / splits, end = tiles * (slice + 1) / splits;
  const int64_t groups = ceil_div(ceil_div(p.w.rows, kFragmentRows), group);
  const int64_t runs = ceil_div(groups - blockIdx.x, gridDim.x);
  const int64_t step = static_cast<int64_t>(gridDim.x) * group;
  const int64_t strip = static_cast<int64_t>(blockIdx.x) * group;
  FewStream weights(shared + warp * FewStream::kRingBytes, p.w, strip + warp / splits, step, runs, begin,
                    end - begin);
  stage_rows<T>(staged, p.x, p.x_stride, rows, p.w.cols, 0, tiles, thread, kThreads);
  __syncthreads();
  for (int64_t run = 0; run < runs; ++run) {
    // The first warps of a block end the strips of its group. What they add is on its way meanwhile.
    const int64_t n = (strip + run * step + warp) * kFragmentRows;
    Addends addends = {};
    if (warp < group) addends = load_addends(p, n, 0, lane);
    StripSums<1, 1> sums = {};
    multiply_strips<T>(sums, weights, staged + staged_bytes(rows, begin), rows, end - begin);
    float4 total = as_float4(sums[0][0]);
    if (splits > 1) {
      // Two buffers: those who are ahead write the other one, and wait at the next barrier.
      float4* meet = slice_sums + run % 2 * kThreads;
      meet[thread] = total;
      __syncthreads();
      if (warp < group) {
        total = meet[warp * splits * kWarpThreads + lane];
        for (int s = 1; s < splits; ++s) total = add(total, meet[(warp * splits + s) * kWarpThreads + lane]);
      }
    }
    if (warp >= group) continue;
    add_addends(p, total, addends);
    store_outputs(p, n, 0, lane, total);
  }
}

template <typename T>
void launch_few(const MatmulParams& p, int splits, Stream& stream) {
  const int64_t groups = ceil_div(ceil_div(p.w.rows, kFragmentRows), kWarps / splits);
  const int64_t shared = kFewRingBytes + kFewSumBytes + staged_bytes(p.rows, fragment_tiles(p.w.cols));
  const int64_t blocks = ceil_div(groups, ceil_div(groups, kFewBlocks));  // as many groups for each
  launch("matmul", matmul_few_kernel<T>, dim3(static_cast<uint32_t>(blocks)), kThreads,
         static_cast<size_t>(shared), stream, p, splits);
}

constexpr int64_t kEnoughBlocks = 128;                           // from here on slices need not be shared out
constexpr int64_t kMaxRowBlocks = 4096, kMaxBlocks = INT32_MAX;  // of one launch

template <typename T, int kColumns, bool kSerial>
void launch_panel(const MatmulParams& p, const Panel& panel, Stream& stream) {
  const int64_t blocks = panel.row_blocks * ceil_div(p.w.rows, kPanelOutputs);
  const dim3 grid(static_cast<uint32_t>(blocks), kSerial ? 1 : static_cast<uint32_t>(panel.splits));
  launch("matmul", matmul_panel_kernel<T, kColumns, kSerial>, grid, kThreads, kPanelSharedBytes, stream, p,
         panel);
}

// Blocks that each have all of K. More than one row block: x is rounded once, for as many of them at a time
// as the workspace takes.
template <typename T>
void launch_whole(const MatmulParams& all, int splits, Stream& stream) {
  const int64_t tiles = fragment_tiles(all.w.cols);
  const int64_t fit = stream.workspace_bytes / staged_bytes(kPanelMaxRows, tiles);
  const bool rounded = all.rows > kPanelMaxRows && fit > 0;
  const int64_t most = std::min(kMaxRowBlocks, kMaxBlocks / ceil_div(all.w.rows, kPanelOutputs));
  const int64_t at_once = (rounded ? std::min(fit, most) : most) * kPanelMaxRows;
  for (int64_t row = 0; row < all.rows; row += at_once) {
    MatmulParams p = all;
    p.rows = std::min(at_once, all.rows - row);
    p.x += row * p.x_stride;
    p.y += row * p.y_stride;
    if (p.residual != nullptr) p.residual += row * p.y_stride;
    const int64_t row_blocks = ceil_div(p.rows, kPanelMaxRows);
    if (rounded) {
      const dim3 grid(static_cast<uint32_t>(ceil_div(tiles, kRoundTiles)), static_cast<uint32_t>(row_blocks));
      launch("matmul", matmul_round_kernel<T>, grid, kThreads, 0, stream, p, stream.workspace);
    }
    const Panel panel = {splits, row_blocks, rounded ? stream.workspace : nullptr, nullptr, nullptr};
    if (splits > 1) {
      launch_panel<T, kPanelColumns, true>(p, panel, stream);
    } else {
      launch_panel<T, kPanelColumns, false>(p, panel, stream);
    }
  }
}

template <typename T>
void launch_columns(const MatmulParams& p, const Panel& panel, Stream& stream) {
  if (p.rows <= 8) return launch_panel<T, 1, false>(p, panel, stream);
  if (p.rows <= 16) return launch_panel<T, 2, false>(p, panel, stream);
  if (p.rows <= 32) return launch_panel<T, 4, false>(p, panel, stream);
  launch_panel<T, kPanelColumns, false>(p, panel, stream);
}

template <typename T>
void matmul(const MatmulParams& p, Stream& stream) {
  if (p.rows == 0) return;
  const int splits = matmul_splits(p.w.rows, p.w.cols);
  if (p.rows <= kFewRows && staged_bytes(p.rows, fragment_tiles(p.w.cols)) <= kFewStagedBytes) {
    return launch_few<T>(p, splits, stream);
  }
  const int64_t row_blocks = ceil_div(p.rows, kPanelMaxRows);
  const int64_t blocks = row_blocks * ceil_div(p.w.rows, kPanelOutputs);
  // Of a block and slice, for 64 rows: with fewer columns it is less.
  constexpr int64_t kBlockSums = int64_t{kPanelOutputs} * kPanelMaxRows * sizeof(float);
  const bool fits =
      blocks * splits * kBlockSums <= stream.workspace_bytes && blocks * kWarps <= stream.counter_count;
  if (splits == 1 && row_blocks == 1) {
    launch_columns<T>(p, {splits, row_blocks, nullptr, nullptr, nullptr}, stream);
  } else if (splits > 1 && fits && blocks < kEnoughBlocks) {
    launch_columns<T>(
        p, {splits, row_blocks, nullptr, static_cast<float4*>(stream.workspace), stream.counters}, stream);
  } else {
    launch_whole<T>(p, splits, stream);
  }
}

}  // namespace

void matmul_cuda(const MatmulParams& p, Stream& stream) {
  with_element(p.w.dtype, [&](auto t) { matmul<decltype(t)>(p, stream); });
}

}  // namespace redrafter
