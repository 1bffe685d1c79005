#include "base/device.cuh"
#include "ops/kv.h"

namespace redrafter {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kPiece = 8;  // elements in 16 bytes

unsigned blocks_for(int64_t items) { return static_cast<unsigned>(ceil_div(items, kThreads)); }

__device__ int64_t thread_item() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }

__device__ uint16_t* half_of(const KvLayer& kv, bool values) {
  return static_cast<uint16_t*>(values ? kv.v : kv.k);
}

__device__ int64_t stride_of(const KvLayer& kv, bool values) {
  return values ? kv.v_block_stride : kv.k_block_stride;
}

// A thread moves 16 bytes of one head, of k or of v, along the path of a lane, in one layer: no thread reads
// what another writes. Several are read before they are written, to wait once for all of them: writes so far
// reach slots below committed + i, and reads from i on are at committed + i and above.
__global__ void __launch_bounds__(kThreads) kv_compact_kernel(KvCompactParams p) {
  constexpr int kAtOnce = 8;
  const KvLayer& kv = p.kv;
  const int64_t lane = blockIdx.y, layer = blockIdx.z;
  const int32_t* table = p.block_tables + lane * p.table_stride;
  const int32_t* path = p.path + lane * p.path_stride;
  const int64_t committed = p.committed[lane], count = p.path_length[lane];
  const int64_t padded = head_dim_padded(kv.head_dim), pieces = padded / kPiece;
  const int64_t item = thread_item(), half = kv.kv_heads * pieces;
  if (item >= 2 * half) return;
  const bool values = item >= half;
  const int64_t within = item % half;
  const int64_t stride = stride_of(kv, values);
  uint16_t* origin = half_of(kv, values) + layer * p.layer_stride + within / pieces * kBlockTokens * padded +
                     within % pieces * kPiece;
  const auto at = [&](int64_t slot) {
    return reinterpret_cast<uint4*>(origin + table[slot / kBlockTokens] * stride +
                                    slot % kBlockTokens * padded);
  };
  for (int64_t begin = 0; begin < count; begin += kAtOnce) {
    uint4 moved[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (begin + i < count) moved[i] = *at(committed + path[begin + i]);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (begin + i < count) *at(committed + begin + i) = moved[i];
    }
  }
}

__global__ void __launch_bounds__(kThreads) kv_copy_block_kernel(KvCopyBlockParams p) {
  const KvLayer& kv = p.kv;
  const int64_t pieces = head_dim_padded(kv.head_dim) / kPiece;
  const int64_t item = thread_item(), half = kv.kv_heads * kBlockTokens * pieces;
  if (item >= 2 * half) return;
  const bool values = item >= half;
  const int64_t within = item % half, token = within / pieces % kBlockTokens;
  const int64_t stride = stride_of(kv, values);
  uint16_t* data = half_of(kv, values);
  const auto at = [&](int64_t block) {
    return reinterpret_cast<uint4*>(data + block * stride + within * kPiece);
  };
  *at(p.to) = token < p.tokens ? *at(p.from) : uint4{0, 0, 0, 0};
}

// Element `item` of the exchange layout: which element of k or v of a block it is, and of which token.
// Padding of the head dimension has the exchange layout for v alone, where dim >= head_dim.
struct Element {
  bool values;
  int64_t index, token, dim;
};

__device__ Element element_of(const KvLayer& kv, int64_t item) {
  const int64_t padded = head_dim_padded(kv.head_dim);
  const int64_t keys = kv.kv_heads * kv.head_dim * kBlockTokens;
  if (item >= keys) {
    const int64_t index = item - keys;
    return {true, index, index / padded % kBlockTokens, index % padded};
  }
  const int64_t token = item % kBlockTokens, dim = item / kBlockTokens % kv.head_dim;
  const int64_t head = item / (kBlockTokens * kv.head_dim);
  return {false, (head * kBlockTokens + token) * padded + dim, token, dim};
}

int64_t exchange_elements(const KvLayer& kv) {
  return kv.kv_heads * kBlockTokens * (kv.head_dim + head_dim_padded(kv.head_dim));
}

template <typename T>
__global__ void __launch_bounds__(kThreads) kv_export_kernel(KvBlockParams p, int64_t items) {
  const int64_t item = thread_item();
  if (item >= items) return;
  const Element e = element_of(p.kv, item);
  const uint16_t* data = half_of(p.kv, e.values) + p.block * stride_of(p.kv, e.values);
  const bool kept = e.token < p.tokens && e.dim < p.kv.head_dim;
  p.data[item] = kept ? T::to_float(data[e.index]) : 0.0f;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) kv_import_kernel(KvBlockParams p, int64_t items) {
  const int64_t item = thread_item();
  if (item >= items) return;
  const Element e = element_of(p.kv, item);
  uint16_t* data = half_of(p.kv, e.values) + p.block * stride_of(p.kv, e.values);
  data[e.index] = T::from_float(p.data[item]);
  // The padding of k, which the exchange layout lacks.
  if (e.values && e.dim >= p.kv.head_dim) {
    (half_of(p.kv, false) + p.block * stride_of(p.kv, false))[e.index] = 0;
  }
}

}  // namespace

void kv_compact_cuda(const KvCompactParams& p, Stream& stream) {
  const int64_t items = 2 * p.kv.kv_heads * (head_dim_padded(p.kv.head_dim) / kPiece);
  const dim3 grid(blocks_for(items), static_cast<unsigned>(p.lanes), static_cast<unsigned>(p.layers));
  launch("kv_compact", kv_compact_kernel, grid, kThreads, 0, stream, p);
}

void kv_copy_block_cuda(const KvCopyBlockParams& p, Stream& stream) {
  const int64_t items = 2 * p.kv.kv_heads * kBlockTokens * (head_dim_padded(p.kv.head_dim) / kPiece);
  launch("kv_copy_block", kv_copy_block_kernel, blocks_for(items), kThreads, 0, stream, p);
}

void kv_export_cuda(const KvBlockParams& p, Stream& stream) {
  const int64_t items = exchange_elements(p.kv);
  with_element(p.kv.dtype, [&](auto element) {
    launch("kv_export", kv_export_kernel<decltype(element)>, blocks_for(items), kThreads, 0, stream, p,
           items);
  });
}

void kv_import_cuda(const KvBlockParams& p, Stream& stream) {
  const int64_t items = exchange_elements(p.kv);
  with_element(p.kv.dtype, [&](auto element) {
    launch("kv_import", kv_import_kernel<decltype(element)>, blocks_for(items), kThreads, 0, stream, p,
           items);
  });
}

}  // namespace redrafter
