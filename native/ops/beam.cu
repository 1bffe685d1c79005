#include <cmath>

#include "base/device.cuh"
#include "ops/beam.h"
#include "ops/quad.cuh"
#include "ops/select.cuh"

namespace redrafter {
namespace {

// Block (b, l) writes beam b of lane l. Each makes the whole selection for itself, which takes less time than
// handing it over.
__global__ void __launch_bounds__(512) beam_kernel(BeamParams p) {
  __shared__ SelectShared s;
  __shared__ int32_t chosen;
  uint64_t* candidates = dynamic_shared<uint64_t>();
  const int64_t mine = blockIdx.x;
  const int64_t first_row = blockIdx.y * p.rows;  // of the lane
  const int32_t* token = p.token + first_row * p.width;

  const auto total = [&](int64_t i) {
    const int64_t at = first_row + static_cast<uint32_t>(i) / static_cast<uint32_t>(p.width);
    return p.scores[at * p.columns + p.step - 1] + (p.logit[first_row * p.width + i] - p.log_sum_exp[at]);
  };
  const auto key = [&](int64_t i) { return token[i] < 0 ? uint64_t{0} : top_key(total(i), i); };
  const auto take = [&](int64_t rank, uint64_t k) {
    if (rank == mine) chosen = top_id(k);
  };
  const int64_t live = select_largest(p.rows * p.width, p.width, key, take, candidates, s);
  if (mine == 0 && threadIdx.x == 0) p.live[blockIdx.y] = static_cast<int32_t>(live);
  __syncthreads();
  const int64_t to = blockIdx.y * p.width + mine;
  float* next_scores = p.next_scores + to * p.columns;
  int32_t* next_beams = p.next_beams + to * p.columns;
  float* next_state = p.next_state + to * p.hidden;
  if (mine >= live) {  // a dead row
    for (int64_t i = threadIdx.x; i <= p.step; i += blockDim.x) {
      next_scores[i] = NAN;
      next_beams[i] = 0;
    }
    for (int64_t i = threadIdx.x; i < p.hidden; i += blockDim.x) next_state[i] = 0.0f;
    return;
  }
  const int64_t from = first_row + chosen / p.width;
  if (threadIdx.x == 0) {
    const int32_t drafted = token[chosen];
    next_scores[p.step] = total(chosen);
    next_beams[p.step] = p.id_map == nullptr ? drafted : p.id_map[drafted];
  }
  for (int64_t i = threadIdx.x; i < p.step; i += blockDim.x) {
    next_scores[i] = p.scores[from * p.columns + i];
    next_beams[i] = p.beams[from * p.columns + i];
  }
  const float* state = p.state + from * p.hidden;
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
