// Attention of each row over the positions it sees (see Batch), grouped KV heads, softmax in fp32.
// Row invariance: a score is one chain over head_dim; the maximum is exact; the sum has 16 interleaved
// partial sums by logical position and a pairwise fold; the output adds v in ascending logical position.
// Nothing depends on slots, on other rows or on where the tree begins.
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
  float* scratch;  // [threads, attention_scratch(...)]
  int64_t scratch_stride;
};

// Rows of a sequence that one task attends for together: they read K and V once.
constexpr int64_t kAttentionRows = 4;

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
