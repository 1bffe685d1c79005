#include "ops/attention.h"

#include <cmath>
#include <limits>

#include "base/threads.h"

namespace redrafter {
namespace {

// Slot that holds logical position j of a row.
int64_t slot_of(const Batch& batch, int64_t row, int64_t j) {
  const int64_t context = batch.context[row];
  return j < context ? j : batch.tail_slots[batch.tail_begin[row] + (j - context)];
}

}  // namespace

int64_t attention_work(const AttentionParams& p) {
  int64_t positions = 0;
  for (int64_t row = 0; row < p.batch.rows; ++row) positions += p.batch.position[row] + 1;
  return 2 * positions * p.heads * p.kv.head_dim;
}

int64_t attention_scratch(int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t max_positions) {
  const int64_t group = heads / kv_heads;
  // Of a pair its scores, one block more so that pairs do not lie a power of two apart, one vector, sums of
  // the weights, the largest score.
  const int64_t pair =
      ceil_to(max_positions, kBlockTokens) + kBlockTokens + head_dim_padded(head_dim) + 2 * 16;
  return attention_rows(group) * group * pair;
}

void attention_cpu(const AttentionParams& p, Stream& stream) {
  const KvLayer& kv = p.kv;
  const int64_t dim = kv.head_dim, padded = head_dim_padded(dim), group = p.heads / kv.kv_heads;
  const int64_t width = (p.heads + 2 * kv.kv_heads) * dim;
  stream.threads->run(p.batch.rows * p.heads, attention_work(p), [&](int64_t task, int thread) {
    const int64_t row = task / p.heads, head = task % p.heads, kv_head = head / group;
    const int32_t* table = p.batch.block_tables + p.batch.sequence[row] * p.batch.table_stride;
    const float* q = p.qkv + row * width + head * dim;
    float* score = p.scratch + thread * p.scratch_stride;
    const int64_t positions = p.batch.position[row] + 1;

    float largest = -std::numeric_limits<float>::infinity();
    for (int64_t j = 0; j < positions; ++j) {
      const int64_t slot = slot_of(p.batch, row, j);
      const float* k = kv.k_floats() + table[slot / kBlockTokens] * kv.k_block_stride +
                       kv_head * dim * kBlockTokens + slot % kBlockTokens;
      float sum = 0.0f;
      for (int64_t i = 0; i < dim; ++i) sum = std::fma(k[i * kBlockTokens], q[i], sum);
      score[j] = sum * p.scale;
      if (score[j] > largest) largest = score[j];
    }
    float part[16] = {};
    for (int64_t j = 0; j < positions; ++j) {
      score[j] = std::exp(score[j] - largest);
      part[j % 16] += score[j];
    }
    for (int fold = 8; fold > 0; fold /= 2) {
      for (int i = 0; i < fold; ++i) part[i] += part[i + fold];
    }
    float* y = p.y + row * p.heads * dim + head * dim;
    for (int64_t i = 0; i < dim; ++i) {
      float sum = 0.0f;
      for (int64_t j = 0; j < positions; ++j) {
        const int64_t slot = slot_of(p.batch, row, j);
        const float* v = kv.v_floats() + table[slot / kBlockTokens] * kv.v_block_stride +
                         (kv_head * kBlockTokens + slot % kBlockTokens) * padded;
        sum = std::fma(v[i], score[j], sum);
      }
      y[i] = sum / part[0];
    }
  });
}

}  // namespace redrafter
