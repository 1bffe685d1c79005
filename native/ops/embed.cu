#include "base/device.cuh"
#include "ops/embed.h"

namespace redrafter {
namespace {

constexpr int kThreads = 256;

// One thread per row of y, k tile and member of four: of the 16 bytes that a lane of a matrix instruction
// gets of a tile, half belong to the row.
template <typename T>
__global__ void embed_kernel(EmbedParams p) {
  const int64_t tiles = fragment_tiles(p.table.cols), hidden = p.table.cols;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= p.rows * tiles * 4) return;
  const int64_t member = index % 4, tile = index / 4 % tiles, row = index / 4 / tiles;
  const int64_t n = p.token[row];
  const uint4 v = static_cast<const uint4*>(
      p.table.data)[(n / kFragmentRows * tiles + tile) * kWarpThreads + n % 8 * 4 + member];
  const uint32_t pairs[2] = {n % 16 < 8 ? v.x : v.y, n % 16 < 8 ? v.z : v.w};
  float* y = p.y + row * hidden;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int64_t k = tile * kFragmentCols + i * 8 + member * 2;
    if (k < hidden) y[k] = T::to_float(static_cast<uint16_t>(pairs[i]));
    if (k + 1 < hidden) y[k + 1] = T::to_float(static_cast<uint16_t>(pairs[i] >> 16));
  }
}

}  // namespace

void embed_cuda(const EmbedParams& p, Stream& stream) {
  const int64_t threads = p.rows * fragment_tiles(p.table.cols) * 4;
  const dim3 grid(static_cast<uint32_t>(ceil_div(threads, kThreads)));
  with_element(p.table.dtype,
               [&](auto t) { launch("embed", embed_kernel<decltype(t)>, grid, kThreads, 0, stream, p); });
}

}  // namespace redrafter
