#include "base/device.cuh"
#include "kernels.h"

namespace redrafter::lab {
namespace {

__global__ void copy_kernel(uint4* to, const uint4* from, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step)
    to[i] = from[i];
}

__global__ void read_kernel(uint32_t* to, const uint4* from, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  uint32_t sum = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const uint4 v = from[i];
    sum ^= v.x ^ v.y ^ v.z ^ v.w;
  }
  if (sum == 0x9e3779b9u) *to = sum;  // keeps the reads
}

__global__ void replace_kernel(TreeAcceptParams p, const double* tokens_per_step, uint32_t* rounds) {
  const int64_t lane = blockIdx.x;
  const int32_t first = p.begin[lane], nodes = p.begin[lane + 1] - first;
  if (nodes == 0) return;  // a lane that fills up a graph
  // A low-discrepancy sequence: the share of rounds with one token more is as asked for from the first rounds
  // on.
  const double turn = (rounds[lane]++ + static_cast<double>(lane) / 7) * 0.6180339887498949;
  const double asked = *tokens_per_step, whole = floor(asked);
  const int wanted = static_cast<int>(whole) + (turn - floor(turn) < asked - whole ? 1 : 0);
  int32_t node = 0, length = 1;
  p.path[lane * p.stride] = 0;
  for (int32_t child = 1; child < nodes && length < wanted && length < p.stride; ++child) {
    if (p.parent[first + child] != node) continue;
    p.emitted[lane * p.stride + length - 1] = p.token[first + child];
    node = child;
    p.path[lane * p.stride + length++] = node;
  }
  p.emitted[lane * p.stride + length - 1] = p.chosen[first + node];
  p.path_length[lane] = length;
}

constexpr unsigned kThreads = 512;

}  // namespace

void copy_bytes(void* to, const void* from, int64_t bytes, int64_t blocks, Stream& stream) {
  launch("copy", copy_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream,
         static_cast<uint4*>(to), static_cast<const uint4*>(from), bytes / 16);
}

void read_bytes(void* to, const void* from, int64_t bytes, int64_t blocks, Stream& stream) {
  launch("read", read_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream,
         static_cast<uint32_t*>(to), static_cast<const uint4*>(from), bytes / 16);
}

void replace_paths(const TreeAcceptParams& p, const double* tokens_per_step, uint32_t* rounds,
                   Stream& stream) {
  launch("replace", replace_kernel, dim3(static_cast<unsigned>(p.lanes)), dim3(1), 0, stream, p,
         tokens_per_step, rounds);
}

}  // namespace redrafter::lab
