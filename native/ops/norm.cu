#include "base/device.cuh"
#include "ops/norm.h"
#include "ops/quad.cuh"

namespace redrafter {
namespace {

// A vector of up to kWarpDim elements has a warp, a longer one a block.
constexpr int64_t kWarpDim = 1024;
constexpr int kBlockThreads = 256, kBlockWarps = kBlockThreads / kWarpThreads;
constexpr int kVectorsPerBlock = 4;
// Quads a thread keeps in registers between the sum and the scaling; the rest is read again.
constexpr int kKept = 4;

struct Vector {
  const float* x;
  float* y;
};

__device__ __forceinline__ Vector vector_of(const NormParams& p, int64_t index) {
  const int64_t row = index / p.groups, group = index % p.groups;
  const int64_t source = p.gather != nullptr ? p.gather[row] : row;
  return {p.x + source * p.x_stride + group * p.dim, p.y + row * p.y_stride + group * p.dim};
}

// The part of the sum of squares of thread `thread` of kThreads.
template <int kThreads>
__device__ __forceinline__ float part_of_squares(const float* x, int64_t dim, int thread,
                                                 Quad (&kept)[kKept]) {
  const bool aligned = quad_aligned(x);
#pragma unroll
  for (int n = 0; n < kKept; ++n) {
    kept[n] = load_quad(x, int64_t{4} * (thread + n * kThreads), dim, aligned, 0.0f);
  }
  float sum = 0.0f;
#pragma unroll
  for (int n = 0; n < kKept; ++n) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sum = fmaf(kept[n].v[j], kept[n].v[j], sum);
  }
  for (int64_t i = int64_t{4} * (thread + kKept * kThreads); i < dim; i += 4 * kThreads) {
    const Quad q = load_quad(x, i, dim, aligned, 0.0f);
#pragma unroll
    for (int j = 0; j < 4; ++j) sum = fmaf(q.v[j], q.v[j], sum);
  }
  return sum;
}

template <int kThreads>
__device__ __forceinline__ void scale_vector(const NormParams& p, const Vector& vector, float sum, int thread,
                                             const Quad (&kept)[kKept]) {
  const float scale = 1.0f / sqrtf(sum / static_cast<float>(p.dim) + p.eps);
  const bool x_aligned = quad_aligned(vector.x), y_aligned = quad_aligned(vector.y);
  const bool w_aligned = quad_aligned(p.weight);
  const auto scale_quad = [&](int64_t i, Quad q) {
    const Quad w = load_quad(p.weight, i, p.dim, w_aligned, 0.0f);
#pragma unroll
    for (int j = 0; j < 4; ++j) q.v[j] = q.v[j] * scale * w.v[j];
    store_quad(vector.y, i, p.dim, y_aligned, q);
  };
#pragma unroll
  for (int n = 0; n < kKept; ++n) {
    const int64_t i = int64_t{4} * (thread + n * kThreads);
    if (i < p.dim) scale_quad(i, kept[n]);
  }
  for (int64_t i = int64_t{4} * (thread + kKept * kThreads); i < p.dim; i += 4 * kThreads) {
    scale_quad(i, load_quad(vector.x, i, p.dim, x_aligned, 0.0f));
  }
}

__global__ void __launch_bounds__(kVectorsPerBlock* kWarpThreads) norm_warp_kernel(NormParams p) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kVectorsPerBlock + threadIdx.x / kWarpThreads;
  if (index >= p.rows * p.groups) return;
  const int lane = static_cast<int>(threadIdx.x % kWarpThreads);
  const Vector vector = vector_of(p, index);
  Quad kept[kKept];
  const float sum = warp_sum(part_of_squares<kWarpThreads>(vector.x, p.dim, lane, kept));
  scale_vector<kWarpThreads>(p, vector, sum, lane, kept);
}

__global__ void __launch_bounds__(kBlockThreads) norm_block_kernel(NormParams p) {
  __shared__ float parts[kBlockWarps];
  const int thread = static_cast<int>(threadIdx.x);
  const Vector vector = vector_of(p, blockIdx.x);
  Quad kept[kKept];
  const float part = warp_sum(part_of_squares<kBlockThreads>(vector.x, p.dim, thread, kept));
  if (thread % kWarpThreads == 0) parts[thread / kWarpThreads] = part;
  __syncthreads();
  float sum = parts[0];
#pragma unroll
  for (int warp = 1; warp < kBlockWarps; ++warp) sum += parts[warp];
  scale_vector<kBlockThreads>(p, vector, sum, thread, kept);
}

}  // namespace

void norm_cuda(const NormParams& p, Stream& stream) {
  const int64_t vectors = p.rows * p.groups;
  if (p.dim <= kWarpDim) {
    launch("norm", norm_warp_kernel, dim3(static_cast<unsigned>(ceil_div(vectors, kVectorsPerBlock))),
           dim3(kVectorsPerBlock * kWarpThreads), 0, stream, p);
  } else {
    launch("norm", norm_block_kernel, dim3(static_cast<unsigned>(vectors)), dim3(kBlockThreads), 0, stream,
           p);
  }
}

}  // namespace redrafter
