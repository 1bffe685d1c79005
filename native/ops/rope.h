// Rotary embedding of q and k (rotate-half convention: dimension i pairs with i + head_dim/2), then append of
// k and v to the paged cache at each row's slot. Nothing is done for inert rows.
#pragma once
#include "base/tensor.h"

namespace redrafter {

struct RopeParams {
  float* qkv;            // [rows, (heads + 2 kv_heads) * head_dim]: q, k, v; q is rotated in place
  const float* cos_sin;  // [positions, head_dim / 2, 2]
  KvLayer kv;
  Batch batch;
  int64_t heads;
};

void rope_cpu(const RopeParams&, Stream&);
// The same operations, unfused, so q has the CPU's bits; k and v are rounded to the dtype of the cache.
void rope_cuda(const RopeParams&, Stream&);

}  // namespace redrafter
