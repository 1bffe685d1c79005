// Moves inside the paged cache: compaction of an accepted path, and the copy behind copy-on-write.
#pragma once
#include "base/tensor.h"

namespace redrafter {

// For i ascending: slot to_slot + i takes K and V of slot from[i]. Safe in place because from[i] >= to_slot +
// i and from is strictly increasing.
struct KvCompactParams {
  KvLayer kv;
  const int32_t* block_table;  // the sequence's
  const int32_t* from;         // [count]
  int64_t to_slot, count;
};

void kv_compact_cpu(const KvCompactParams&, Stream&);
void kv_compact_cuda(const KvCompactParams&, Stream&);

// Copies the first `tokens` slots of block `from` to block `to`, and zeros the rest of `to`.
struct KvCopyBlockParams {
  KvLayer kv;
  int32_t from, to;
  int64_t tokens;
};

void kv_copy_block_cpu(const KvCopyBlockParams&, Stream&);
void kv_copy_block_cuda(const KvCopyBlockParams&, Stream&);

// One block of a layer to or from the layout that every backend can exchange, which is the CPU's: fp32, k
// [kv_heads, head_dim, 16], then v [kv_heads, 16, head_dim_padded]. Numbers that a 16-bit cache cannot hold
// are rounded on import.
struct KvBlockParams {
  KvLayer kv;
  int32_t block;
  int64_t tokens;  // export: slots from here on, and padding, leave as zeros; import ignores it
  float* data;     // [kv_heads * 16 * (head_dim + head_dim_padded)], memory of the backend
};

void kv_export_cpu(const KvBlockParams&, Stream&);
void kv_import_cpu(const KvBlockParams&, Stream&);
void kv_export_cuda(const KvBlockParams&, Stream&);
void kv_import_cuda(const KvBlockParams&, Stream&);

}  // namespace redrafter
