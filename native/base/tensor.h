// The few shared types of the op layer: a packed weight matrix, the rows of a batch, the paged cache of one
// layer, and the stream ops run on. All pointers are memory of the backend; strides are in elements.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace redrafter {

class ThreadPool;

// Where ops run, one after another. The CPU backend uses `threads`; the rest is set by open_stream of a CUDA
// backend.
struct Stream {
  ThreadPool* threads = nullptr;
  void* cuda = nullptr;  // cudaStream_t
  // Memory for what one op hands from one of its kernels or blocks to another. Counters are zero between ops.
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
  uint32_t* counters = nullptr;
  int64_t counter_count = 0;
  // The first CUDA call that failed on this stream: what it said, and which call. Later ops do nothing.
  const char* error = nullptr;
  const char* failed = nullptr;
};

// A weight matrix W [rows, cols], row n holding the weights of output n.
// CPU layout ("panels"): rows in groups of 16, column-major inside a group, so that one load yields one
// column of 16 outputs: element (n, k) is data[(n / 16) * cols * 16 + k * 16 + n % 16]; rows are padded with
// zeros.
// CUDA layout ("fragments"; bf16 and f16 only): tiles of 16 x 16 elements, padded with zeros on both sides,
// those of one row of tiles one after another. A tile is 32 x 8 elements: what each lane of a warp hands to a
// matrix instruction as its first operand, 16 bytes in one piece. See fragment_index.
struct Matrix {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
};

constexpr int64_t kPanelRows = 16;

constexpr int64_t ceil_to(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Where element (n, k) of a matrix in the CUDA layout lies. Inside a tile: lane = 4 (n % 8) + k % 8 / 2, and
// of its 8 elements, register n % 16 / 8 + 2 (k % 16 / 8), half k % 2: see mma_16x8x16 in base/ptx.cuh.
constexpr int64_t kFragmentRows = 16, kFragmentCols = 16;
constexpr int64_t fragment_tiles(int64_t cols) { return (cols + kFragmentCols - 1) / kFragmentCols; }
constexpr int64_t fragment_index(int64_t n, int64_t k, int64_t cols) {
  const int64_t tile = n / 16 * fragment_tiles(cols) + k / 16;
  const int64_t lane = n % 8 * 4 + k % 8 / 2, part = n % 16 / 8 + k % 16 / 8 * 2;
  return tile * 256 + lane * 8 + part * 2 + k % 2;
}

// Tokens in a cache block. A block never spans sequences; it may be shared by forks.
constexpr int64_t kBlockTokens = 16;

// The paged cache of one layer. Block b starts at element b * block_stride of k and of v.
// CPU layout, fp32:
//   k: [block, kv_heads, head_dim, 16]            a column is one token: scores of 16 tokens are one vector
//   v: [block, kv_heads, 16, head_dim_padded]     head_dim_padded = head_dim rounded up to 16, padding is
//   zero
// CUDA layout, bf16 or f16 as the weights:
//   k, v: [block, kv_heads, 16, head_dim_padded]  a row is one token; padding is zero
struct KvLayer {
  void* k = nullptr;
  void* v = nullptr;
  DType dtype = DType::kF32;
  int64_t k_block_stride = 0;
  int64_t v_block_stride = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;

  float* k_floats() const { return static_cast<float*>(k); }
  float* v_floats() const { return static_cast<float*>(v); }
};

constexpr int64_t head_dim_padded(int64_t head_dim) { return ceil_to(head_dim, 16); }

// The rows of one forward pass: prompt chunks and draft trees of any number of sequences, flat.
// Row r sits at logical position position[r] of its sequence and sees positions 0..position[r]: the first
// context[r] of them are the slots 0..context[r]-1 of the sequence, the others (its ancestors in the tree and
// itself) are the position[r] + 1 - context[r] slots from tail_slots[tail_begin[r]] on, in ascending
// position.
// A row with slot -1 is inert: it sits at position -1 with a context of 0, so it sees nothing, and neither K
// nor V of it is written anywhere. It has a token and a sequence as any row. What ops leave in its rows of
// their results is not specified.
struct Batch {
  int64_t rows = 0;
  const int32_t* token = nullptr;       // [rows]
  const int32_t* position = nullptr;    // [rows]
  const int32_t* slot = nullptr;        // [rows] where K and V of this row are written, or -1
  const int32_t* sequence = nullptr;    // [rows] row of block_tables
  const int32_t* context = nullptr;     // [rows]
  const int32_t* tail_begin = nullptr;  // [rows]
  const int32_t* tail_slots = nullptr;
  const int32_t* block_tables = nullptr;  // [sequences, table_stride] block of slots 16 i .. 16 i + 15
  int64_t table_stride = 0;
  // Bounds that whoever launches kernels knows without reading the lists; 0: not known, which costs speed.
  int64_t sequences = 0;      // at least the rows of block_tables in use
  int64_t max_positions = 0;  // at least position + 1 of every row
};

}  // namespace redrafter
