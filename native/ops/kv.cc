#include "ops/kv.h"

#include <algorithm>
#include <cstring>

namespace redrafter {
namespace {

struct SlotAddress {
  int64_t block, offset;
};

SlotAddress locate(const int32_t* block_table, int64_t slot) {
  return {block_table[slot / kBlockTokens], slot % kBlockTokens};
}

void copy_slot(const KvLayer& kv, SlotAddress from, SlotAddress to) {
  const int64_t padded = head_dim_padded(kv.head_dim);
  const float* k_from = kv.k_floats() + from.block * kv.k_block_stride + from.offset;
  float* k_to = kv.k_floats() + to.block * kv.k_block_stride + to.offset;
  for (int64_t i = 0; i < kv.kv_heads * kv.head_dim; ++i) k_to[i * kBlockTokens] = k_from[i * kBlockTokens];
  for (int64_t h = 0; h < kv.kv_heads; ++h) {
    std::memcpy(kv.v_floats() + to.block * kv.v_block_stride + (h * kBlockTokens + to.offset) * padded,
                kv.v_floats() + from.block * kv.v_block_stride + (h * kBlockTokens + from.offset) * padded,
                static_cast<size_t>(padded) * sizeof(float));
  }
}

}  // namespace

void kv_compact_cpu(const KvCompactParams& p, Stream&) {
  KvLayer kv = p.kv;
  for (int64_t layer = 0; layer < p.layers; ++layer) {
    for (int64_t lane = 0; lane < p.lanes; ++lane) {
      const int32_t* table = p.block_tables + lane * p.table_stride;
      for (int64_t i = 0; i < p.path_length[lane]; ++i) {
        const int64_t node = p.path[lane * p.path_stride + i], committed = p.committed[lane];
        if (node != i) copy_slot(kv, locate(table, committed + node), locate(table, committed + i));
      }
    }
    kv.k = kv.k_floats() + p.layer_stride;
    kv.v = kv.v_floats() + p.layer_stride;
  }
}

void kv_copy_block_cpu(const KvCopyBlockParams& p, Stream&) {
  const KvLayer& kv = p.kv;
  std::memset(kv.k_floats() + p.to * kv.k_block_stride, 0,
              static_cast<size_t>(kv.k_block_stride) * sizeof(float));
  std::memset(kv.v_floats() + p.to * kv.v_block_stride, 0,
              static_cast<size_t>(kv.v_block_stride) * sizeof(float));
  for (int64_t t = 0; t < p.tokens; ++t) copy_slot(kv, {p.from, t}, {p.to, t});
}

void kv_export_cpu(const KvBlockParams& p, Stream&) {
  const KvLayer& kv = p.kv;
  const int64_t padded = head_dim_padded(kv.head_dim);
  float *k = p.data, *v = k + kv.k_block_stride;
  std::memcpy(k, kv.k_floats() + p.block * kv.k_block_stride,
              static_cast<size_t>(kv.k_block_stride) * sizeof(float));
  std::memcpy(v, kv.v_floats() + p.block * kv.v_block_stride,
              static_cast<size_t>(kv.v_block_stride) * sizeof(float));
  for (int64_t row = 0; row < kv.kv_heads * kv.head_dim; ++row) {
    std::fill(k + row * kBlockTokens + p.tokens, k + (row + 1) * kBlockTokens, 0.0f);
  }
  for (int64_t h = 0; h < kv.kv_heads; ++h) {
    float* head = v + h * kBlockTokens * padded;
    std::fill(head + p.tokens * padded, head + kBlockTokens * padded, 0.0f);
  }
}

void kv_import_cpu(const KvBlockParams& p, Stream&) {
  const KvLayer& kv = p.kv;
  std::memcpy(kv.k_floats() + p.block * kv.k_block_stride, p.data,
              static_cast<size_t>(kv.k_block_stride) * sizeof(float));
  std::memcpy(kv.v_floats() + p.block * kv.v_block_stride, p.data + kv.k_block_stride,
              static_cast<size_t>(kv.v_block_stride) * sizeof(float));
}

}  // namespace redrafter
