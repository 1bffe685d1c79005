#include <cmath>

#include "base/device.cuh"
#include "ops/quad.cuh"
#include "ops/sample.h"
#include "ops/select.cuh"

namespace redrafter {
namespace {

constexpr int64_t kSegment = 4096;
constexpr int kSumThreads = 256;

// A part of a row: its largest logit, and the sum of exp(logit - reference). The reference is the largest
// logit, or 0 where none is above -infinity.
struct Part {
  double largest, sum;
};
__device__ __forceinline__ double reference_of(double largest) {
  return largest == -INFINITY ? 0.0 : largest;
}

// Sum in the order of a butterfly.
__device__ __forceinline__ double warp_sum(double v) {
#pragma unroll
  for (int lanes = kWarpThreads / 2; lanes > 0; lanes /= 2) v += __shfl_xor_sync(kAllLanes, v, lanes);
  return v;
}
__device__ __forceinline__ double warp_largest(double v) {
#pragma unroll
  for (int lanes = kWarpThreads / 2; lanes > 0; lanes /= 2) {
    const double other = __shfl_xor_sync(kAllLanes, v, lanes);
    v = other > v ? other : v;
  }
  return v;
}

struct PartShared {
  double largest[kMostWarps], sum[kMostWarps];
};

// By all threads of a block of part_threads(vocab).
__device__ Part part_of(const float* logits, int64_t vocab, int64_t segment, PartShared& s) {
  const int64_t begin = segment * kSegment;
  const int64_t end = begin + kSegment < vocab ? begin + kSegment : vocab;
  const auto visit = [&](const auto& body) {
    visit_row<4>(logits, begin, end, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), body);
  };
  double largest = -INFINITY;
  visit([&](int64_t, float logit) { largest = logit > largest ? logit : largest; });
  largest = warp_largest(largest);
  __syncthreads();
  if (lane_index() == 0) s.largest[warp_index()] = largest;
  __syncthreads();
  largest = warp_largest(lane_index() < warp_count() ? s.largest[lane_index()] : -INFINITY);

  const double reference = reference_of(largest);
  double sum = 0.0;
  visit([&](int64_t, float logit) { sum += exp(logit - reference); });
  sum = warp_sum(sum);
  if (lane_index() == 0) s.sum[warp_index()] = sum;
  __syncthreads();
  return {largest, warp_sum(lane_index() < warp_count() ? s.sum[lane_index()] : 0.0)};
}
unsigned part_threads(int64_t vocab) { return vocab < 1024 ? kWarpThreads : kSumThreads; }

__global__ void __launch_bounds__(kSumThreads) part_kernel(LogprobParams p, int64_t segments, Part* parts) {
  __shared__ PartShared s;
  const int64_t row = blockIdx.x / segments, segment = blockIdx.x % segments;
  const Part part = part_of(p.logits + p.row[row] * p.vocab, p.vocab, segment, s);
  if (threadIdx.x == 0) parts[blockIdx.x] = part;
}

// log(sum of exp(logit)) of a row, the same in every thread: part i belongs to lane i % 32, whose sum rises
// with i. Parts are computed here when there was no room for them.
__device__ double log_sum_exp(const float* logits, int64_t vocab, const Part* parts, int64_t segments,
                              PartShared& s) {
  const auto part = [&](int64_t i) { return parts != nullptr ? parts[i] : part_of(logits, vocab, i, s); };
  const int64_t first = parts != nullptr ? lane_index() : 0, step = parts != nullptr ? kWarpThreads : 1;
  double largest = -INFINITY, sum = 0.0;
  for (int64_t i = first; i < segments; i += step) {
    const Part one = part(i);
    largest = one.largest > largest ? one.largest : largest;
  }
  largest = warp_largest(largest);
  for (int64_t i = first; i < segments; i += step) {
    const Part one = part(i);
    if (i % kWarpThreads == lane_index()) sum += one.sum * exp(reference_of(one.largest) - largest);
  }
  return largest + log(warp_sum(sum));
}

constexpr int kTopThreads = 1024;
constexpr int64_t kTopAtOnce = 1024;

__global__ void __launch_bounds__(kTopThreads)
    logprob_kernel(LogprobParams p, int64_t segments, const Part* parts) {
  __shared__ PartShared part_shared;
  __shared__ SelectShared s;
  __shared__ uint64_t candidates[select_capacity(kTopAtOnce)];
  __shared__ uint64_t lowest;
  const int64_t index = blockIdx.x;
  const float* logits = p.logits + p.row[index] * p.vocab;
  const double norm = log_sum_exp(logits, p.vocab, parts == nullptr ? nullptr : parts + index * segments,
                                  segments, part_shared);
  const auto logprob = [norm](float logit) { return static_cast<float>(logit - norm); };
  if (threadIdx.x == 0) p.logprob[index] = logprob(logits[p.token[index]]);

  // So many at a time; each time among the keys below the last one found.
  int64_t filled = 0;
  for (uint64_t bound = ~uint64_t{0}; filled < p.top_k;) {
    const int64_t top = p.top_k - filled < kTopAtOnce ? p.top_k - filled : kTopAtOnce;
    const auto key = [logits, bound](int64_t id) {
      const uint64_t k = top_key(logits[id], id);
      return k < bound ? k : 0;
    };
    const auto take = [&](int64_t rank, uint64_t k) {
      const int64_t to = index * p.top_k + filled + rank;
      p.top_token[to] = top_id(k);
      p.top_logprob[to] = logprob(logits[top_id(k)]);
      if (rank == top - 1) lowest = k;
    };
    const int64_t found = select_largest(p.vocab, top, key, take, candidates, s);
    filled += found;
    if (found < top) break;
    __syncthreads();
    bound = lowest;
  }
  for (int64_t k = filled + threadIdx.x; k < p.top_k; k += blockDim.x) {
    p.top_token[index * p.top_k + k] = -1;
    p.top_logprob[index * p.top_k + k] = logprob(-INFINITY);
  }
}

}  // namespace

void logprob_cuda(const LogprobParams& p, Stream& stream) {
  const int64_t segments = ceil_div(p.vocab, kSegment);
  const bool fits = p.rows * segments * static_cast<int64_t>(sizeof(Part)) <= stream.workspace_bytes;
  auto* parts = fits ? static_cast<Part*>(stream.workspace) : nullptr;
  const unsigned few = part_threads(p.vocab);
  if (fits) {
    launch("logprob parts", part_kernel, dim3(static_cast<unsigned>(p.rows * segments)), dim3(few), 0, stream,
           p, segments, parts);
  }
  launch("logprob", logprob_kernel, dim3(static_cast<unsigned>(p.rows)),
         dim3(fits && few == kSumThreads ? kTopThreads : few), 0, stream, p, segments, parts);
}

}  // namespace redrafter
