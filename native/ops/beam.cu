#include <cmath>

#include "base/device.cuh"
#include "ops/beam.h"
#include "ops/quad.cuh"
#include "ops/select.cuh"

namespace redrafter {
namespace {

__device__ BeamParams lane_of(BeamParams p, int64_t lane) {
  const int64_t rows = lane * p.rows, next = lane * p.width;
  p.token += rows * p.width, p.logit += rows * p.width, p.log_sum_exp += rows;
  p.scores += rows * p.columns, p.beams += rows * p.columns, p.state += rows * p.hidden;
  p.next_scores += next * p.columns, p.next_beams += next * p.columns, p.next_state += next * p.hidden;
  p.live += lane;
  return p;
}

// Block (b, l) writes beam b of lane l. Each makes the whole selection for itself, which takes less time than
// handing it over.
__global__ void __launch_bounds__(512) beam_kernel(BeamParams lanes) {
  const BeamParams p = lane_of(lanes, blockIdx.y);
  __shared__ SelectShared s;
  __shared__ int32_t chosen;
  uint64_t* candidates = dynamic_shared<uint64_t>();
  const int64_t mine = blockIdx.x;

  const auto total = [&p](int64_t i) {
    const uint32_t row = static_cast<uint32_t>(i) / static_cast<uint32_t>(p.width);
    return p.scores[row * p.columns + p.step - 1] + (p.logit[i] - p.log_sum_exp[row]);
  };
  const auto key = [&](int64_t i) { return p.token[i] < 0 ? uint64_t{0} : top_key(total(i), i); };
  const auto take = [&](int64_t rank, uint64_t k) {
    if (rank == mine) chosen = top_id(k);
  };
  const int64_t live = select_largest(p.rows * p.width, p.width, key, take, candidates, s);
  if (mine == 0 && threadIdx.x == 0) *p.live = static_cast<int32_t>(live);
  __syncthreads();
  if (mine >= live) {  // a dead row
    for (int64_t i = threadIdx.x; i <= p.step; i += blockDim.x) {
      p.next_scores[mine * p.columns + i] = NAN;
      p.next_beams[mine * p.columns + i] = 0;
    }
    for (int64_t i = threadIdx.x; i < p.hidden; i += blockDim.x) p.next_state[mine * p.hidden + i] = 0.0f;
    return;
  }
  const int64_t row = chosen / p.width;
  if (threadIdx.x == 0) {
    const int32_t token = p.token[chosen];
    p.next_scores[mine * p.columns + p.step] = total(chosen);
    p.next_beams[mine * p.columns + p.step] = p.id_map == nullptr ? token : p.id_map[token];
  }
  for (int64_t i = threadIdx.x; i < p.step; i += blockDim.x) {
    p.next_scores[mine * p.columns + i] = p.scores[row * p.columns + i];
    p.next_beams[mine * p.columns + i] = p.beams[row * p.columns + i];
  }
  const float* state = p.state + row * p.hidden;
  float* next_state = p.next_state + mine * p.hidden;
  const bool from_aligned = quad_aligned(state), to_aligned = quad_aligned(next_state);
  for (int64_t i = int64_t{4} * threadIdx.x; i < p.hidden; i += int64_t{4} * blockDim.x) {
    store_quad(next_state, i, p.hidden, to_aligned, load_quad(state, i, p.hidden, from_aligned, 0.0f));
  }
}

__global__ void beam_start_kernel(BeamStartParams p) {
  const int64_t lane = blockIdx.x;
  if (threadIdx.x == 0) {
    p.scores[lane * p.columns] = 0.0f;
    p.beams[lane * p.columns] = p.root[lane];
  }
  for (int64_t i = threadIdx.x; i < p.hidden; i += blockDim.x) p.state[lane * p.hidden + i] = 0.0f;
}

}  // namespace

void beam_start_cuda(const BeamStartParams& p, Stream& stream) {
  launch("beam_start", beam_start_kernel, dim3(static_cast<unsigned>(p.lanes)), dim3(256), 0, stream, p);
}

void beam_cuda(const BeamParams& p, Stream& stream) {
  const unsigned threads = p.rows * p.width > 512 || p.hidden > 512 ? 512 : 128;
  const size_t shared = static_cast<size_t>(select_capacity(p.width)) * sizeof(uint64_t);
  launch("beam", beam_kernel, dim3(static_cast<unsigned>(p.width), static_cast<unsigned>(p.lanes)),
         dim3(threads), shared, stream, p);
}

}  // namespace redrafter
