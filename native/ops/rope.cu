#include "base/device.cuh"
#include "ops/rope.h"

namespace redrafter {
namespace {

constexpr int kThreads = 256;

// Where dimension 0 of head 0 of row `row` lies in the cache, in elements from the start of k or v.
__device__ int64_t cache_origin(const RopeParams& p, int64_t row, int64_t block_stride, int64_t padded) {
  const int64_t slot = p.batch.slot[row];
  const int64_t block =
      p.batch.block_tables[p.batch.sequence[row] * p.batch.table_stride + slot / kBlockTokens];
  return block * block_stride + slot % kBlockTokens * padded;
}

// One thread turns one pair of dimensions of q or k, or stores one element of v, padding included.
template <typename T>
__global__ void __launch_bounds__(kThreads) rope_kernel(RopeParams p) {
  const int64_t row = blockIdx.x;
  if (p.batch.slot[row] < 0) return;
  const int64_t dim = p.kv.head_dim, half = dim / 2, padded = head_dim_padded(dim);
  const int64_t width = (p.heads + 2 * p.kv.kv_heads) * dim;
  const int64_t pairs = (p.heads + p.kv.kv_heads) * half;
  const int64_t item = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  float* x = p.qkv + row * width;
  if (item < pairs) {
    const int64_t head = item / half, i = item % half;
    const float* turn = p.cos_sin + (p.batch.position[row] * half + i) * 2;
    const float c = turn[0], s = turn[1];
    const float a = x[head * dim + i], b = x[head * dim + i + half];
    const float lower = a * c - b * s, upper = b * c + a * s;
    if (head < p.heads) {
      x[head * dim + i] = lower;
      x[head * dim + i + half] = upper;
      return;
    }
    uint16_t* k = static_cast<uint16_t*>(p.kv.k) + cache_origin(p, row, p.kv.k_block_stride, padded) +
                  (head - p.heads) * kBlockTokens * padded;
    k[i] = T::from_float(lower);
    k[i + half] = T::from_float(upper);
    // Padding is shorter than 16; the pairs of a head may be fewer.
    for (int64_t pad = dim + i; pad < padded; pad += half) k[pad] = 0;
    return;
  }
  const int64_t rest = item - pairs;
  if (rest >= p.kv.kv_heads * padded) return;
  const int64_t head = rest / padded, i = rest % padded;
  uint16_t* v = static_cast<uint16_t*>(p.kv.v) + cache_origin(p, row, p.kv.v_block_stride, padded) +
                head * kBlockTokens * padded;
  v[i] = i < dim ? T::from_float(x[(p.heads + p.kv.kv_heads + head) * dim + i]) : uint16_t{0};
}

}  // namespace

void rope_cuda(const RopeParams& p, Stream& stream) {
  const int64_t dim = p.kv.head_dim;
  const int64_t items = (p.heads + p.kv.kv_heads) * (dim / 2) + p.kv.kv_heads * head_dim_padded(dim);
  const dim3 grid(static_cast<unsigned>(p.batch.rows), static_cast<unsigned>(ceil_div(items, kThreads)));
  with_element(p.kv.dtype, [&](auto element) {
    launch("rope", rope_kernel<decltype(element)>, grid, kThreads, 0, stream, p);
  });
}

}  // namespace redrafter
