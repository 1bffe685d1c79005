#include "base/device.cuh"
#include "ops/act.h"
#include "ops/quad.cuh"

namespace redrafter {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) act_kernel(ActParams p) {
  const int64_t i = int64_t{4} * (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x);
  if (i >= p.dim) return;
  for (int64_t row = blockIdx.y; row < p.rows; row += gridDim.y) {
    const float* gate = p.gate_up + row * 2 * p.dim;
    const float* up = gate + p.dim;
    float* y = p.y + row * p.dim;
    const Quad g = load_quad(gate, i, p.dim, quad_aligned(gate), 0.0f);
    const Quad u = load_quad(up, i, p.dim, quad_aligned(up), 0.0f);
    Quad q;
#pragma unroll
    for (int j = 0; j < 4; ++j) q.v[j] = g.v[j] / (1.0f + expf(-g.v[j])) * u.v[j];
    store_quad(y, i, p.dim, quad_aligned(y), q);
  }
}

}  // namespace

void act_cuda(const ActParams& p, Stream& stream) {
  constexpr int64_t kMostRows = 65535;  // of a grid
  const int64_t rows = p.rows < kMostRows ? p.rows : kMostRows;
  launch("act", act_kernel,
         dim3(static_cast<unsigned>(ceil_div(p.dim, 4 * kThreads)), static_cast<unsigned>(rows)),
         dim3(kThreads), 0, stream, p);
}

}  // namespace redrafter
