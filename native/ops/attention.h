// Attention of each row over the positions it sees (see Batch), grouped KV heads, softmax in fp32.
// CPU: row invariance: a score is one chain over head_dim; the maximum is exact; the sum has 16 interleaved
// partial sums by logical position and a pairwise fold; the output adds v in ascending logical position.
// Nothing depends on slots, on other rows or on where the tree begins.
// CUDA: q is rounded to the dtype of the cache; the scale is applied to fp32 scores; weights, relative to the
// running maximum, are rounded to the dtype of the cache, and it is the rounded ones that the sum adds up.
// Positions are divided the same way for every row, from 0 on: steps of 16, chunks of 32 (16 where head_dim
// is above 128), splits of 256, of 1024 from position 8192 on. Of one row and head,
//   - a score is one chain of matrix instructions over head_dim, ascending, 16 dimensions at a time;
//   - a split begins with maximum -Infinity, sum 0 and output 0; its chunks come in ascending order. A chunk
//     takes the exact maximum of its scores and the running one; sum and output so far are multiplied by
//     exp(old maximum - new one); the sum of the chunk's weights is added with one rounding: four partial
//     sums, number m of the positions 8 n + 2 m and 8 n + 2 m + 1 in ascending order, folded (0 + 1) + (2 +
//     3); the output goes on as one chain of matrix instructions, a step at a time;
//   - splits are merged in ascending order, in fp32, in the same way.
// Positions that a row does not see have scores of -Infinity, weights of zero and, in the instructions that
// add to this row, keys and values of zero; where it sees nothing of a step, a chunk or a split, its totals
// stay as they are. Nothing depends on slots, on other rows, on where the tree begins, or on which block did
// what: a position of the tree takes the same place in the same step as when it is committed. Matrix
// instructions are taken to compute each row of their result from that row of the first operand, the second
// operand and that row of the accumulator alone, in a way that depends on neither the row nor the column.
#pragma once
#include "base/tensor.h"

namespace redrafter {

struct AttentionParams {
  const float* qkv;  // [rows, (heads + 2 kv_heads) * head_dim]; only q is read
  float* y;          // [rows, heads * head_dim]
  KvLayer kv;
  Batch batch;
  int64_t heads;
  float scale;     // multiplies every score
  float* scratch;  // [threads, attention_scratch(...)]; of the CPU alone, as the next
  int64_t scratch_stride;
};

// Most rows of a sequence that one task attends for together, with `group` heads to a KV head: they read K
// and V once. Scratch grows with them, and their scores should not fill the second-level cache.
constexpr int64_t attention_rows(int64_t group) { return group <= 4 ? 16 : group <= 8 ? 8 : 4; }

// Floats of scratch one thread needs for positions 0..max_positions-1.
int64_t attention_scratch(int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t max_positions);

// Multiply-adds of the whole call.
int64_t attention_work(const AttentionParams& p);

void attention_cpu(const AttentionParams&, Stream&);  // oracle: plain loops
void attention_cuda(const AttentionParams&, Stream&);
namespace isa_base {
void attention(const AttentionParams&, Stream&);
}
namespace isa_neon {
void attention(const AttentionParams&, Stream&);
}
namespace isa_avx2 {
void attention(const AttentionParams&, Stream&);
}
namespace isa_avx512 {
void attention(const AttentionParams&, Stream&);
}

}  // namespace redrafter
