// Moves inside the paged cache: compaction of an accepted path, and the copy behind copy-on-write.
#pragma once
#include "base/tensor.h"

namespace redrafter {

// For each lane, for i ascending: slot committed + i takes K and V of slot committed + path[i], in every
// layer. Safe in place because path[i] >= i and path is strictly increasing, and no lane has a block that
// another lane writes to.
struct KvCompactParams {
  KvLayer kv;                   // of the first layer
  const int32_t* block_tables;  // [lanes, table_stride]
  const int32_t* committed;     // [lanes]
  const int32_t* path;          // [lanes, path_stride]
  const int32_t* path_length;   // [lanes], each at most path_stride
  int64_t lanes, table_stride, path_stride;
  int64_t layers = 1;
  int64_t layer_stride = 0;  // elements from k and v of a layer to those of the next
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
