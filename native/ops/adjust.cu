#include "base/device.cuh"
#include "ops/adjust.h"

namespace redrafter {
namespace {

constexpr int kThreads = 256;
// Blocks of a row. How many entries there are is known on the device alone, so that a captured launch serves
// any number: threads without one end at once.
constexpr int64_t kParts = 4;

__device__ int64_t lane_of(const AdjustParams& p, int64_t row) {
  int64_t low = 0, high = p.lanes - 1;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (p.begin[middle] <= row) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

__device__ bool has_entry(const AdjustEntry* entries, int64_t count, int32_t id) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (entries[middle].id < id) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < count && entries[low].id == id;
}

// No two threads touch the same logit: the entries of a lane have different ids, and of the tokens on a path
// those that are no entry count once, in the first part.
template <bool undo>
__global__ void __launch_bounds__(kThreads) adjust_kernel(AdjustParams p) {
  __shared__ int32_t path[kAdjustDepths];  // from the row's token up
  __shared__ int32_t depth;
  const int64_t row = blockIdx.x / kParts, part = blockIdx.x % kParts;
  if (row >= p.begin[p.lanes]) return;
  const int64_t lane = lane_of(p, row), first = p.begin[lane];
  const AdjustLane own = p.lane[lane];
  const bool penalizes = adjust_penalizes(own);
  if (own.entries == 0 && !penalizes) return;
  if (undo && own.saved < 0) return;
  if (threadIdx.x == 0) {
    int32_t steps = 0;
    for (int64_t node = row; p.node_parent[node] >= 0 && steps < kAdjustDepths; ++steps) {
      path[steps] = p.node_token[node];
      node = first + p.node_parent[node];
    }
    depth = steps;
  }
  __syncthreads();
  const auto times = [&](int32_t id) {
    int32_t count = 0;
    for (int32_t j = 0; j < depth; ++j) count += path[j] == id ? 1 : 0;
    return count;
  };
  float* logits = p.logits + row * p.vocab;
  float* kept = own.saved < 0 ? nullptr : p.saved + own.saved + (row - first) * adjust_saved(own.entries);
  const auto change = [&](int32_t id, int64_t place, int32_t generated, bool seen, float bias, bool banned) {
    if (undo) {
      logits[id] = kept[place];
      return;
    }
    const float logit = logits[id];
    if (kept != nullptr) kept[place] = logit;
    logits[id] = adjust_logit(logit, own, generated, seen, bias, banned);
  };

  const AdjustEntry* entries = p.entries + own.first_entry;
  for (int64_t i = part * kThreads + threadIdx.x; i < own.entries; i += kParts * kThreads) {
    const AdjustEntry e = entries[i];
    const int32_t drafted = times(e.id);
    const bool banned =
        (e.flags & kAdjustBanned) != 0 || ((e.flags & kAdjustEnding) != 0 && depth < own.ending_depth);
    change(e.id, i, e.generated + drafted, drafted > 0 || (e.flags & kAdjustSeen) != 0, e.bias, banned);
  }
  const int32_t j = static_cast<int32_t>(threadIdx.x);
  if (part != 0 || !penalizes || j >= depth) return;
  for (int32_t i = 0; i < j; ++i) {
    if (path[i] == path[j]) return;
  }
  if (has_entry(entries, own.entries, path[j])) return;
  change(path[j], own.entries + j, times(path[j]), true, 0.0f, false);
}

dim3 grid_of(const AdjustParams& p) { return dim3(static_cast<unsigned>(p.rows * kParts)); }

}  // namespace

void adjust_cuda(const AdjustParams& p, Stream& stream) {
  launch("adjust", adjust_kernel<false>, grid_of(p), dim3(kThreads), 0, stream, p);
}

void adjust_undo_cuda(const AdjustParams& p, Stream& stream) {
  launch("adjust_undo", adjust_kernel<true>, grid_of(p), dim3(kThreads), 0, stream, p);
}

}  // namespace redrafter
