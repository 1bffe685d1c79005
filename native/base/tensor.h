// The few shared types of the op layer: a packed weight matrix, the rows of a batch, the paged cache of one
// layer, and the stream ops run on. All pointers are memory of the backend; strides are in elements.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace redrafter {

class ThreadPool;

// Where ops run: the CPU backend uses `threads`, the CUDA backend `cuda` (a CUstream).
struct Stream {
  ThreadPool* threads = nullptr;
  void* cuda = nullptr;
};

// A weight matrix W [rows, cols], row n holding the weights of output n.
// CPU layout ("panels"): rows in groups of 16, column-major inside a group, so that one load yields one
// column of 16 outputs: element (n, k) is data[(n / 16) * cols * 16 + k * 16 + n % 16]; rows are padded with
// zeros.
struct Matrix {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
};

constexpr int64_t kPanelRows = 16;

static inline int64_t matrix_bytes(int64_t rows, int64_t cols, DType dtype) {
  return (rows + kPanelRows - 1) / kPanelRows * kPanelRows * cols * static_cast<int64_t>(dtype_bytes(dtype));
}

// Tokens in a cache block. A block never spans sequences; it may be shared by forks.
constexpr int64_t kBlockTokens = 16;

// The paged cache of one layer, fp32. Block b starts at k + b * block_stride and v + b * block_stride.
//   k: [block, kv_heads, head_dim, 16]            a column is one token: scores of 16 tokens are one vector
//   v: [block, kv_heads, 16, head_dim_padded]     head_dim_padded = head_dim rounded up to 16, padding is
//   zero
struct KvLayer {
  float* k = nullptr;
  float* v = nullptr;
  int64_t k_block_stride = 0;
  int64_t v_block_stride = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
};

static inline int64_t head_dim_padded(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

// The rows of one forward pass: prompt chunks and draft trees of any number of sequences, flat.
// Row r sits at logical position position[r] of its sequence and sees positions 0..position[r]: the first
// context[r] of them are the slots 0..context[r]-1 of the sequence, the rest (its ancestors in the tree and
// itself) are tail_slots[tail_begin[r] .. tail_begin[r+1]), in ascending position.
struct Batch {
  int64_t rows = 0;
  const int32_t* token = nullptr;         // [rows]
  const int32_t* position = nullptr;      // [rows]
  const int32_t* slot = nullptr;          // [rows] where K and V of this row are written
  const int32_t* sequence = nullptr;      // [rows] row of block_tables
  const int32_t* context = nullptr;       // [rows]
  const int32_t* tail_begin = nullptr;    // [rows + 1]
  const int32_t* tail_slots = nullptr;    // [tail_begin[rows]]
  const int32_t* block_tables = nullptr;  // [sequences, table_stride] block of slots 16 i .. 16 i + 15
  int64_t table_stride = 0;
};

}  // namespace redrafter
