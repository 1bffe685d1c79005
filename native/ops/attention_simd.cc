#include "base/threads.h"
#include "ops/attention.h"
#include "ops/math_simd.h"
#include "ops/panel_simd.h"

namespace redrafter::REDRAFTER_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kScoreTile = 8, kOutTile = 8;
#else
constexpr int kScoreTile = 4, kOutTile = 2;
#endif

// The (row, head) pairs that share one KV head of one sequence, and where their scores live.
struct Run {
  const AttentionParams* p;
  const int32_t* table;
  int64_t first_row, rows, kv_head, group, score_stride;
  float* tail_chunk;  // [head_dim, 16] gathered columns of K
  float* sums;        // [rows * group] of the weights
  float* scores;      // [rows * group, score_stride] by logical position

  int64_t pairs() const { return rows * group; }
  int64_t row(int64_t pair) const { return first_row + pair / group; }
  int64_t head(int64_t pair) const { return kv_head * group + pair % group; }
  const float* query(int64_t pair) const {
    const KvLayer& kv = p->kv;
    return p->qkv + row(pair) * (p->heads + 2 * kv.kv_heads) * kv.head_dim + head(pair) * kv.head_dim;
  }
  const float* k_block(int64_t slot) const {
    const KvLayer& kv = p->kv;
    return kv.k_floats() + table[slot / kBlockTokens] * kv.k_block_stride +
           kv_head * kv.head_dim * kBlockTokens;
  }
  const float* v_row(int64_t slot) const {
    const KvLayer& kv = p->kv;
    return kv.v_floats() + table[slot / kBlockTokens] * kv.v_block_stride +
           (kv_head * kBlockTokens + slot % kBlockTokens) * head_dim_padded(kv.head_dim);
  }
};

// scores[pair][at .. at+15] = scale * q . K for `count` pairs from `first` against one [head_dim, 16] chunk.
// `next` will be read after it: blocks lie apart, so that nothing else fetches them ahead.
template <int T>
REDRAFTER_INLINE void score_chunk(const Run& run, int64_t first, int64_t count, const float* chunk,
                                  const float* next, int64_t at) {
  const float* q[T];
  F16 acc[T];
  for (int t = 0; t < T; ++t) {
    q[t] = run.query(first + (t < count ? t : count - 1));
    acc[t] = f16_zero();
  }
  const int64_t dim = run.p->kv.head_dim;
  for (int64_t i = 0; i < dim; ++i) {
    f16_prefetch(next + i * kBlockTokens);
    const F16 k = f16_load(chunk + i * kBlockTokens);
    for (int t = 0; t < T; ++t) acc[t] = f16_fma(k, f16_set(q[t][i]), acc[t]);
  }
  const F16 scale = f16_set(run.p->scale);
  for (int t = 0; t < T && t < count; ++t) {
    f16_store(run.scores + (first + t) * run.score_stride + at, f16_mul(acc[t], scale));
  }
}

REDRAFTER_INLINE void score_pairs(const Run& run, int64_t first, int64_t count, const float* chunk,
                                  const float* next, int64_t at) {
  for (int64_t i = 0; i < count; i += kScoreTile) {
    const int64_t n = count - i < kScoreTile ? count - i : kScoreTile;
    if (n > kScoreTile / 2) {
      score_chunk<kScoreTile>(run, first + i, n, chunk, next, at);
    } else if (n > 1) {
      score_chunk<kScoreTile / 2>(run, first + i, n, chunk, next, at);
    } else {
      score_chunk<1>(run, first + i, n, chunk, next, at);
    }
  }
}

REDRAFTER_INLINE void score_context(const Run& run) {
  int64_t longest = 0;
  for (int64_t r = 0; r < run.rows; ++r) {
    const int64_t context = run.p->batch.context[run.first_row + r];
    longest = context > longest ? context : longest;
  }
  for (int64_t at = 0; at < longest; at += kBlockTokens) {
    const int64_t next = at + kBlockTokens;
    // After the last of K comes the first of V.
    score_pairs(run, 0, run.pairs(), run.k_block(at), next < longest ? run.k_block(next) : run.v_row(0), at);
  }
}

// Ancestors of one row: their K columns are gathered into chunks, so that the same loop scores them.
REDRAFTER_INLINE void score_tail(const Run& run, int64_t r) {
  const Batch& batch = run.p->batch;
  const int64_t row = run.first_row + r, dim = run.p->kv.head_dim;
  const int64_t begin = batch.tail_begin[row], count = batch.position[row] + 1 - batch.context[row];
  for (int64_t done = 0; done < count; done += kBlockTokens) {
    // Lanes past the tail keep whatever an earlier chunk left: their scores are never read.
    for (int64_t j = 0; j < kBlockTokens && done + j < count; ++j) {
      const int64_t slot = batch.tail_slots[begin + done + j];
      const float* k = run.k_block(slot) + slot % kBlockTokens;
      for (int64_t i = 0; i < dim; ++i) run.tail_chunk[i * kBlockTokens + j] = k[i * kBlockTokens];
    }
    score_pairs(run, r * run.group, run.group, run.tail_chunk, run.tail_chunk, batch.context[row] + done);
  }
}

REDRAFTER_INLINE float largest_of(const float* score, int64_t positions) {
  F16 best = f16_set(score[0]);
  int64_t j = 0;
  for (; j + kLanes <= positions; j += kLanes) best = f16_max(f16_load(score + j), best);
  alignas(64) float lanes[kLanes];
  f16_store(lanes, best);
  float largest = lanes[0];
  for (int i = 1; i < kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  for (; j < positions; ++j) largest = score[j] > largest ? score[j] : largest;
  return largest;
}

// Scores to weights exp(score - max), unused lanes to exact zeros; returns their sum.
REDRAFTER_INLINE float soften(float* score, int64_t positions) {
  const F16 shift = f16_set(-largest_of(score, positions));
  F16 sum = f16_zero();
  int64_t j = 0;
  for (; j + kLanes <= positions; j += kLanes) {
    const F16 e = f16_exp(f16_add(f16_load(score + j), shift));
    f16_store(score + j, e);
    sum = f16_add(sum, e);
  }
  if (j < positions) {
    f16_store(score + j, f16_exp(f16_add(f16_load(score + j), shift)));
    for (int64_t i = positions; i < j + kLanes; ++i) score[i] = 0.0f;
    sum = f16_add(sum, f16_load(score + j));
  }
  return f16_fold(sum);
}

// y[pair][at .. at + 16 D) for `count` pairs: V in ascending logical position, the shared context first.
template <int T, int D>
REDRAFTER_INLINE void output(const Run& run, int64_t first, int64_t count, int64_t at) {
  const Batch& batch = run.p->batch;
  const float* e[T];
  int64_t shared = batch.context[run.row(first)];
  for (int t = 0; t < T; ++t) {
    const int64_t pair = first + (t < count ? t : count - 1);
    e[t] = run.scores + pair * run.score_stride;
    const int64_t context = batch.context[run.row(pair)];
    shared = context < shared ? context : shared;
  }
  F16 acc[T][D];
  for (int t = 0; t < T; ++t) {
    for (int d = 0; d < D; ++d) acc[t][d] = f16_zero();
  }
  const int64_t padded = head_dim_padded(run.p->kv.head_dim);
  for (int64_t block = 0; block < shared; block += kBlockTokens) {
    const float* v = run.v_row(block) + at;
    const int64_t ahead = block + kBlockTokens < shared ? block + kBlockTokens : block;
    const float* next = run.v_row(ahead) + at;
    const int64_t n = shared - block < kBlockTokens ? shared - block : kBlockTokens;
    for (int64_t j = 0; j < n; ++j, v += padded, next += padded) {
      for (int d = 0; d < D; ++d) f16_prefetch(next + d * kLanes);
      F16 vd[D];
      for (int d = 0; d < D; ++d) vd[d] = f16_load(v + d * kLanes);
      for (int t = 0; t < T; ++t) {
        const F16 weight = f16_set(e[t][block + j]);
        for (int d = 0; d < D; ++d) acc[t][d] = f16_fma(vd[d], weight, acc[t][d]);
      }
    }
  }
  const int64_t dim = run.p->kv.head_dim;
  for (int t = 0; t < T && t < count; ++t) {
    const int64_t row = run.row(first + t), context = batch.context[row];
    const int32_t* tail = batch.tail_slots + batch.tail_begin[row];
    for (int64_t j = shared; j <= batch.position[row]; ++j) {
      const float* v = run.v_row(j < context ? j : tail[j - context]) + at;
      const F16 weight = f16_set(e[t][j]);
      for (int d = 0; d < D; ++d) acc[t][d] = f16_fma(f16_load(v + d * kLanes), weight, acc[t][d]);
    }
    const F16 sum = f16_set(run.sums[first + t]);
    float* y = run.p->y + row * run.p->heads * dim + run.head(first + t) * dim + at;
    for (int d = 0; d < D; ++d) f16_store_n(y + d * kLanes, f16_div(acc[t][d], sum), dim - at - d * kLanes);
  }
}

template <int D>
REDRAFTER_INLINE void output_pairs(const Run& run, int64_t at) {
  for (int64_t first = 0; first < run.pairs(); first += kOutTile) {
    const int64_t n = run.pairs() - first < kOutTile ? run.pairs() - first : kOutTile;
    if (n > kOutTile / 2) {
      output<kOutTile, D>(run, first, n, at);
    } else {
      output<kOutTile / 2, D>(run, first, n, at);
    }
  }
}

void attend(const Run& run) {
  score_context(run);
  for (int64_t r = 0; r < run.rows; ++r) score_tail(run, r);
  for (int64_t pair = 0; pair < run.pairs(); ++pair) {
    run.sums[pair] = soften(run.scores + pair * run.score_stride, run.p->batch.position[run.row(pair)] + 1);
  }
  const int64_t padded = head_dim_padded(run.p->kv.head_dim);
  int64_t at = 0;
  for (; at + 2 * kLanes <= padded; at += 2 * kLanes) output_pairs<2>(run, at);
  if (at < padded) output_pairs<1>(run, at);
}

}  // namespace

void attention(const AttentionParams& p, Stream& stream) {
  const int64_t blocks = (p.batch.rows + kAttentionRows - 1) / kAttentionRows;
  const int64_t kv_heads = p.kv.kv_heads, group = p.heads / kv_heads;
  const int64_t tail_floats = p.kv.head_dim * kBlockTokens;
  const int64_t sum_floats = (kAttentionRows * group + kLanes - 1) / kLanes * kLanes;
  const int64_t score_stride =
      (p.scratch_stride - tail_floats - sum_floats) / (kAttentionRows * group) / kLanes * kLanes;
  stream.threads->run(blocks * kv_heads, attention_work(p), [&](int64_t task, int thread) {
    float* tail_chunk = p.scratch + thread * p.scratch_stride;
    float* sums = tail_chunk + tail_floats;
    const int64_t end = (task / kv_heads + 1) * kAttentionRows;
    for (int64_t row = task / kv_heads * kAttentionRows; row < end && row < p.batch.rows;) {
      int64_t next = row + 1;
      while (next < end && next < p.batch.rows && p.batch.sequence[next] == p.batch.sequence[row]) ++next;
      const int32_t* table = p.batch.block_tables + p.batch.sequence[row] * p.batch.table_stride;
      attend({&p, table, row, next - row, task % kv_heads, group, score_stride, tail_chunk, sums,
              sums + sum_floats});
      row = next;
    }
  });
}

}  // namespace redrafter::REDRAFTER_ISA
