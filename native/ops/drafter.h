// One step of the recurrent drafter (Recurrent Drafter, arXiv 2403.09919): recurrence, mixer, head.
#pragma once
#include "base/cell.h"
#include "base/tensor.h"

namespace redrafter {

struct QuantGroup;  // ops/matmul_quant.h. The room below is for rows of inputs where weights are quantised.

// The recurrent state after consuming one token. Its embedding e is given as such, or looked up: row token[r]
// of an embedding table. A folded table spares the product with W: its rows are W e + w_bias of every token,
// [vocab, hidden] for elman and [vocab, 3 hidden] for gru; w and w_bias are empty then. Looking e up gives
// the bits that passing it gives; a folded table has been rounded to its dtype.
//   sum:   s' = s + e
//   elman: s' = SiLU(W e + U s + b)
//   gru:   r = sigma(Wr e + ur + Ur s + vr), z likewise, n = tanh(Wn e + un + r * (Un s + vn)),
//          s' = (1 - z) * n + z * s; rows of w and u are r, z, n
struct CellParams {
  Cell cell;
  const float* e;        // [rows, hidden], or null: looked up
  const int32_t* token;  // of row r: token[r * token_stride], in [0, table.rows); used when e is null
  Matrix table;          // [vocab, hidden], or folded
  const float* s;        // [rows, hidden]
  float* s_next;         // [rows, hidden]; must not overlap s
  Matrix w, u;           // [hidden, hidden] for elman, [3 hidden, hidden] for gru, empty for sum
  const float* w_bias;   // [hidden] or [3 hidden], or null
  const float* u_bias;   // likewise
  int64_t rows, hidden;
  float* scratch;  // [rows, 7 * hidden]
  int64_t token_stride = 1;
  QuantGroup* room = nullptr;  // [quant_room(2 * rows, hidden)]

  constexpr bool folded() const { return e == nullptr && cell != Cell::kSum && w.data == nullptr; }
};

// z = [h; s] (or its projection P [h; s] + p) is what the mixer starts from.
struct MixParams {
  const float* h;     // [*, hidden] hidden states of the target
  const float* s;     // [rows, hidden]
  Matrix projection;  // [exit, 2 hidden], or empty: exit = 2 hidden
  const float* bias;  // [exit] or null
  float* z;           // [rows, exit] out
  int64_t rows, hidden, exit;
  float* scratch;  // [rows, 2 * hidden]
  // Rows are beams of lanes, `rows_per_lane` of each; lane l has row h_row[l] of h. Null: row 0, all of them.
  const int32_t* h_row = nullptr;
  int64_t rows_per_lane = 1;
  QuantGroup* room = nullptr;  // [quant_room(rows, 2 * hidden)]
};

// z' = z + SiLU(A z + a)
struct ResidualParams {
  const float* z;     // [rows, exit]
  float* z_next;      // [rows, exit]; must not overlap z
  Matrix a;           // [exit, exit]
  const float* bias;  // [exit] or null
  int64_t rows, exit;
  QuantGroup* room = nullptr;  // [quant_room(rows, exit)]
};

// Logits of the draft head reduced to what beam search needs: per row the `top` best, descending, ties by
// lowest id, and log-sum-exp over the draft vocabulary. NaN logits are never chosen; unfilled places hold -1.
// A row with a NaN has a sum of NaN, so that beam search keeps nothing of it.
struct HeadTopParams {
  const float* z;              // [rows, exit]
  Matrix head;                 // [draft_vocab, exit]
  int64_t rows, top;           // CUDA: top is at most 64
  int32_t* token;              // [rows, top] out: head row, or -1
  float* logit;                // [rows, top] out
  float* log_sum_exp;          // [rows] out
  float* scratch;              // [rows, head_top_scratch(draft_vocab)]
  QuantGroup* room = nullptr;  // [quant_room(rows, exit)]
  // Which target ids may be chosen: bit id % 32 of word id / 32, mask_words to a mask. Head rows of other ids
  // count as if there were none, in log_sum_exp, too. Null: all may be, of every row.
  const uint32_t* mask = nullptr;
  const int32_t* mask_index = nullptr;  // [rows / mask_rows] the mask of so many rows, or -1: all ids
  int64_t mask_words = 0, mask_rows = 1;
  const int32_t* id_map = nullptr;  // [draft_vocab] target id of a head row, or null: the same
};

// The words of a row, or null.
constexpr const uint32_t* mask_of(const HeadTopParams& p, int64_t row) {
  if (p.mask == nullptr || p.mask_index[row / p.mask_rows] < 0) return nullptr;
  return p.mask + p.mask_index[row / p.mask_rows] * p.mask_words;
}
constexpr bool may_choose(const HeadTopParams& p, const uint32_t* mask, int64_t head_row) {
  if (mask == nullptr) return true;
  const int64_t id = p.id_map == nullptr ? head_row : p.id_map[head_row];
  return (mask[id / 32] >> (id % 32) & 1) != 0;
}

// Floats per row: on the CPU the logits; on CUDA, for each 128 of them, up to 64 keys of 8 bytes and a sum.
constexpr int64_t head_top_scratch(int64_t draft_vocab) { return (draft_vocab + 127) / 128 * 129; }

void cell_cpu(const CellParams&, Stream&);  // oracles: plain loops
void mix_cpu(const MixParams&, Stream&);
void residual_cpu(const ResidualParams&, Stream&);
void head_top_cpu(const HeadTopParams&, Stream&);

// CUDA: weights and tables are bf16 or f16, each of any of the two; activations are rounded to the dtype of
// the matrix they meet. An output is a sum over slices of K, added ascending from 0: slice i of n covers the
// k tiles [i tiles / n, (i + 1) tiles / n), each one chain of matrix instructions, k ascending. n is 4 for W
// and U of a cell, 8 for U alone with a folded table, for P, for A and for gates of a hidden size that is not
// a multiple of 16, and 1 for the head. So a row has the same bits in every launch.
// log_sum_exp: head rows in tiles of 128, each with its largest logit and its sum of exponentials; tiles
// i, i + 1024, .. are added ascending, then these sums, in an order that depends on the vocabulary alone.
void cell_cuda(const CellParams&, Stream&);
void mix_cuda(const MixParams&, Stream&);
void residual_cuda(const ResidualParams&, Stream&);
void head_top_cuda(const HeadTopParams&, Stream&);

#define REDRAFTER_DRAFTER_OPS                    \
  void cell(const CellParams&, Stream&);         \
  void mix(const MixParams&, Stream&);           \
  void residual(const ResidualParams&, Stream&); \
  void head_top(const HeadTopParams&, Stream&);
namespace isa_base {
REDRAFTER_DRAFTER_OPS
}
namespace isa_neon {
REDRAFTER_DRAFTER_OPS
}
namespace isa_avx2 {
REDRAFTER_DRAFTER_OPS
}
namespace isa_avx512 {
REDRAFTER_DRAFTER_OPS
}
namespace isa_avx512vnni {
REDRAFTER_DRAFTER_OPS
}
#undef REDRAFTER_DRAFTER_OPS

}  // namespace redrafter
