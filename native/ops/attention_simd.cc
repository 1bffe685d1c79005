#include <utility>

#include "base/threads.h"
#include "ops/attention.h"
#include "ops/math_simd.h"
#include "ops/panel_simd.h"

namespace redrafter::REDRAFTER_ISA {
namespace {

// The order of all sums is that of attention.h; what follows decides what is in registers and caches at a
// time. Rows that share a KV head pass over its keys and values together: tiles of pairs, as in panel_simd.h,
// over a few blocks of keys, then over a round of blocks of values.

// A round of values stays in the first-level cache while all pairs pass over it. Half a round more is no
// round of its own.
constexpr int64_t kRoundFloats = 4096, kRoundBlocks = 8, kMostBlocks = kRoundBlocks * 3 / 2;
// Vectors side by side at most: each has a pointer of its own, and one ahead of it.
constexpr int kMostVectors = 4;
constexpr int tile_vectors(int rows) {
  return kTilePanels[rows - 1] < kMostVectors ? kTilePanels[rows - 1] : kMostVectors;
}

// The (row, head) pairs that share one KV head of one sequence, and where their scores live. Every row sees
// something.
struct Run {
  const AttentionParams* p;
  const int32_t* table;
  int64_t first_row, rows, kv_head, group, score_stride;
  float* sums;     // [rows * group, 16] of the weights
  float* largest;  // [rows * group] score
  float* vectors;  // [rows * group, head_dim] queries, later [rows * group, head_dim_padded] outputs
  float* scores;   // [rows * group, score_stride] by logical position, later weights
  // Positions that every row, and that any row finds in the slots of the same numbers; the first slot of any
  // other position, and where the slots of all rows end.
  int64_t shared = INT64_MAX, in_place = 0, first_apart = INT64_MAX, end = 0;

  int64_t pairs() const { return rows * group; }
  int64_t row(int64_t pair) const { return first_row + pair / group; }
  int64_t padded() const { return head_dim_padded(p->kv.head_dim); }
  const float* k_block(int64_t slot) const {
    const KvLayer& kv = p->kv;
    return kv.k_floats() + table[slot / kBlockTokens] * kv.k_block_stride +
           kv_head * kv.head_dim * kBlockTokens;
  }
  const float* v_row(int64_t slot) const {
    const KvLayer& kv = p->kv;
    return kv.v_floats() + table[slot / kBlockTokens] * kv.v_block_stride +
           (kv_head * kBlockTokens + slot % kBlockTokens) * padded();
  }
  const int32_t* tail(int64_t row) const { return p->batch.tail_slots + p->batch.tail_begin[row]; }
};

// Sets what the rows have in common.
REDRAFTER_INLINE void find_slots(Run& run) {
  const Batch& batch = run.p->batch;
  for (int64_t row = run.first_row; row < run.first_row + run.rows; ++row) {
    const int32_t* tail = run.tail(row);
    const int64_t context = batch.context[row], position = batch.position[row];
    // A path continues its context in place until it leaves the first child of each node.
    int64_t in_place = context;
    while (in_place <= position && tail[in_place - context] == in_place) ++in_place;
    if (in_place < run.shared) run.shared = in_place;
    if (in_place > run.in_place) run.in_place = in_place;
    if (in_place > run.end) run.end = in_place;
    if (in_place > position) continue;
    if (tail[in_place - context] < run.first_apart) run.first_apart = tail[in_place - context];
    if (tail[position - context] >= run.end) run.end = tail[position - context] + 1;
  }
  if (run.first_apart > run.end) run.first_apart = run.end;
}

REDRAFTER_INLINE void pack_queries(const Run& run) {
  const KvLayer& kv = run.p->kv;
  const int64_t count = run.group * kv.head_dim, width = (run.p->heads + 2 * kv.kv_heads) * kv.head_dim;
  const float* q = run.p->qkv + run.first_row * width + run.kv_head * count;
  for (int64_t r = 0; r < run.rows; ++r) {
    for (int64_t i = 0; i < count; ++i) run.vectors[r * count + i] = q[r * width + i];
  }
}

// Weights of a tile: vector d of a column, of which parts begin at at[part * D + d] and columns lie `step`
// apart. For each a line of `ahead` is prefetched.
struct TileWeights {
  const float* const* at;
  const float* const* ahead;
  int64_t step, part_columns, columns;  // of all parts
};

// Keeps the compiler from holding what it derived from a number: addresses of all sums would take the
// registers that the loop between their uses needs.
REDRAFTER_INLINE void forget([[maybe_unused]] int64_t& number) {
#if defined(__GNUC__)
  asm volatile("" : "+r"(number));
#endif
}

// sums[t][d] of T rows of x times all columns, in ascending order, added to what is there unless `fresh`, and
// then the scale. Rows lie x_stride and sums_stride apart.
template <int T, int D>
void attention_tile(const float* x, int64_t x_stride, TileWeights w, bool fresh, float scale, float* sums,
                    int64_t sums_stride) {
  F16 acc[T][D];
  REDRAFTER_UNROLL
  for (int t = 0; t < T; ++t) {
    REDRAFTER_UNROLL
    for (int d = 0; d < D; ++d)
      acc[t][d] = fresh ? f16_zero() : f16_load(sums + t * sums_stride + d * kLanes);
  }
  const float* rows[(T + 2) / 3];  // one pointer for three rows, as in panel_tile
  REDRAFTER_UNROLL
  for (int i = 0; i < (T + 2) / 3; ++i) rows[i] = x + 3 * i * x_stride;
  for (; w.columns > 0; w.columns -= w.part_columns, w.at += D, w.ahead += D) {
    const float *at[D], *ahead[D];
    REDRAFTER_UNROLL
    for (int d = 0; d < D; ++d) at[d] = w.at[d], ahead[d] = w.ahead[d];
    int64_t left = w.columns < w.part_columns ? w.columns : w.part_columns;
    for (int64_t offset = 0; left > 0; --left, offset += w.step) {
      F16 wd[D];
      REDRAFTER_UNROLL
      for (int d = 0; d < D; ++d) f16_prefetch(ahead[d] + offset), wd[d] = f16_load(at[d] + offset);
      REDRAFTER_UNROLL
      for (int t = 0; t < T; ++t) {
        const F16 xt = f16_set(rows[t / 3][t % 3 * x_stride]);
        REDRAFTER_UNROLL
        for (int d = 0; d < D; ++d) acc[t][d] = f16_fma(wd[d], xt, acc[t][d]);
      }
      REDRAFTER_UNROLL
      for (int i = 0; i < (T + 2) / 3; ++i) ++rows[i];
    }
  }
  forget(sums_stride);
  REDRAFTER_UNROLL
  for (int t = 0; t < T; ++t) {
    REDRAFTER_UNROLL
    for (int d = 0; d < D; ++d) {
      f16_store(sums + t * sums_stride + d * kLanes, f16_mul(acc[t][d], f16_set(scale)));
    }
  }
}

using AttentionTile = void (*)(const float*, int64_t, TileWeights, bool, float, float*, int64_t);
struct AttentionTiles {
  AttentionTile of[kTileRows];
};

// By the number of rows less one; where registers do not hold D vectors of each, as many as they do.
template <int D, int... T>
constexpr AttentionTiles tiles_of(std::integer_sequence<int, T...>) {
  return {{attention_tile<T + 1, (D < tile_vectors(T + 1) ? D : tile_vectors(T + 1))>...}};
}
template <int D>
constexpr AttentionTiles kTiles = tiles_of<D>(std::make_integer_sequence<int, kTileRows>());

REDRAFTER_INLINE AttentionTile tile_for(int64_t rows, int64_t vectors) {
  return (vectors == 4 ? kTiles<4> : vectors == 2 ? kTiles<2> : kTiles<1>).of[rows - 1];
}

// How pairs are divided into tiles: evenly, so that all have as many vectors side by side.
struct PairTiles {
  int64_t pairs, count, vectors;
  explicit PairTiles(int64_t n)
      : pairs(n),
        count((n + kTileRows - 1) / kTileRows),
        vectors(tile_vectors(static_cast<int>((n + count - 1) / count))) {}
  int64_t first(int64_t tile) const { return tile * pairs / count; }
};

// `found`: the scores of `count` pairs from `first` on in slots [at, at + 16 vectors), kept where rows have
// those slots.
REDRAFTER_INLINE void keep_scores(const Run& run, int64_t first, int64_t count, int64_t at, int64_t vectors,
                                  const float* found) {
  const Batch& batch = run.p->batch;
  const int64_t end = at + vectors * kBlockTokens;
  for (int64_t t = 0; t < count; ++t, found += vectors * kLanes) {
    float* score = run.scores + (first + t) * run.score_stride;
    for (int64_t slot = at; slot < end && slot < run.in_place; slot += kLanes) {
      f16_store(score + slot, f16_load(found + slot - at));
    }
    // What was just stored of positions that this row has elsewhere is replaced: slots are not below
    // positions.
    const int64_t row = run.row(first + t), context = batch.context[row];
    const int32_t* tail = run.tail(row);
    for (int64_t j = context; j <= batch.position[row]; ++j) {
      const int64_t slot = tail[j - context];
      if (slot >= at && slot < end) score[j] = found[slot - at];
    }
  }
}

// All pairs against all slots: queries times keys, blocks of which are vectors side by side.
void score_slots(const Run& run) {
  const int64_t dim = run.p->kv.head_dim;
  const PairTiles tiles(run.pairs());
  alignas(64) float found[kTileRows * kMostVectors * kLanes];
  for (int64_t at = 0, next; at < run.end; at = next) {
    next = at + tiles.vectors * kBlockTokens;
    if (next >= run.in_place && next < run.first_apart) next = run.first_apart / kBlockTokens * kBlockTokens;
    const float *keys[kMostVectors], *ahead[kMostVectors];
    for (int64_t d = 0; d < tiles.vectors; ++d) {
      const int64_t slot = at + d * kBlockTokens, later = next + d * kBlockTokens;
      keys[d] = run.k_block(slot < run.end ? slot : at);
      // After the last keys come the first values.
      ahead[d] = later < run.end ? run.k_block(later) : run.v_row(later - next < run.end ? later - next : 0);
    }
    const int64_t end = at + tiles.vectors * kBlockTokens;
    const bool direct = end <= run.first_apart && end <= run.score_stride;
    for (int64_t tile = 0; tile < tiles.count; ++tile) {
      const int64_t first = tiles.first(tile), n = tiles.first(tile + 1) - first;
      tile_for(n, tiles.vectors)(run.vectors + first * dim, dim, {keys, ahead, kLanes, dim, dim}, true,
                                 run.p->scale, direct ? run.scores + first * run.score_stride + at : found,
                                 direct ? run.score_stride : tiles.vectors * kLanes);
      if (!direct) keep_scores(run, first, n, at, tiles.vectors, found);
    }
  }
}

// Unused lanes after the last score take another one.
REDRAFTER_INLINE float largest_of(float* score, int64_t positions) {
  constexpr int kChains = 4;
  F16 best[kChains];
  for (F16& b : best) b = f16_set(score[0]);
  for (int64_t i = positions; i % kLanes != 0; ++i) score[i] = score[0];
  int64_t j = 0;
  for (; j + kChains * kLanes <= positions; j += kChains * kLanes) {
    for (int i = 0; i < kChains; ++i) best[i] = f16_max(f16_load(score + j + i * kLanes), best[i]);
  }
  for (; j < positions; j += kLanes) best[0] = f16_max(f16_load(score + j), best[0]);
  return f16_largest(f16_max(f16_max(best[0], best[1]), f16_max(best[2], best[3])));
}

// Scores [from, to) to weights exp(score - largest), unused lanes after them to exact zeros; adds them to
// sums[16] by lane. `from` is a multiple of 16, and so is `to`, or it is the end.
REDRAFTER_INLINE void soften(float* score, int64_t from, int64_t to, float largest, float* sums) {
  const F16 shift = f16_set(-largest);
  F16 sum = from == 0 ? f16_zero() : f16_load(sums);
  int64_t j = from;
  for (; j + kLanes <= to; j += kLanes) {
    const F16 e = f16_exp(f16_add(f16_load(score + j), shift));
    f16_store(score + j, e);
    sum = f16_add(sum, e);
  }
  if (j < to) {
    f16_store(score + j, f16_exp(f16_add(f16_load(score + j), shift)));
    for (int64_t i = to; i < j + kLanes; ++i) score[i] = 0.0f;
    sum = f16_add(sum, f16_load(score + j));
  }
  f16_store(sums, sum);
}

// Blocks of values in the round that begins at `position`; one where nothing is shared.
REDRAFTER_INLINE int64_t round_blocks(const Run& run, int64_t position) {
  const int64_t floats = kRoundFloats / (kBlockTokens * run.padded());
  const int64_t fit = floats < 1 ? 1 : floats < kRoundBlocks ? floats : kRoundBlocks;
  const int64_t left = (run.shared - position + kBlockTokens - 1) / kBlockTokens;
  return left < 1 ? 1 : left <= fit + fit / 2 ? left : fit;
}

// Weights of all positions, and the values of those that all rows share, weighted and added up: round by
// round, so that weights are in the first-level cache when they are used.
void add_shared(const Run& run) {
  const PairTiles tiles(run.pairs());
  const int64_t padded = run.padded();
  for (int64_t position = 0, next; position == 0 || position < run.shared; position = next) {
    const int64_t blocks = round_blocks(run, position);
    next = position + blocks * kBlockTokens;
    const int64_t n = (next < run.shared ? next : run.shared) - position;
    for (int64_t pair = 0; pair < run.pairs(); ++pair) {
      const int64_t all = run.p->batch.position[run.row(pair)] + 1;
      soften(run.scores + pair * run.score_stride, position, next < run.shared ? next : all,
             run.largest[pair], run.sums + pair * kLanes);
    }
    for (int64_t at = 0, vectors = tiles.vectors; at < padded; at += vectors * kLanes) {
      while (vectors * kLanes > padded - at) vectors /= 2;
      const float *values[kMostBlocks * kMostVectors], *ahead[kMostBlocks * kMostVectors];
      for (int64_t i = 0; i < blocks * vectors; ++i) {
        const int64_t block = i / vectors * kBlockTokens, offset = at + i % vectors * kLanes;
        values[i] = run.v_row(position + block) + offset;
        ahead[i] = next + block < run.shared ? run.v_row(next + block) + offset : values[i];
      }
      for (int64_t tile = 0; tile < tiles.count; ++tile) {
        const int64_t first = tiles.first(tile), count = tiles.first(tile + 1) - first;
        tile_for(count, vectors)(run.scores + first * run.score_stride + position, run.score_stride,
                                 {values, ahead, padded, kBlockTokens, n}, position == 0, 1.0f,
                                 run.vectors + first * padded + at, padded);
      }
    }
  }
}

// y[pair][at .. at + 16 D): what a row does not share, and the division by the sum of the weights.
template <int D>
REDRAFTER_INLINE void finish(const Run& run, int64_t pair, F16 sum, int64_t at) {
  const Batch& batch = run.p->batch;
  const int64_t row = run.row(pair), context = batch.context[row], dim = run.p->kv.head_dim;
  const float* score = run.scores + pair * run.score_stride;
  F16 acc[D];
  for (int d = 0; d < D; ++d) acc[d] = f16_load(run.vectors + pair * run.padded() + at + d * kLanes);
  for (int64_t j = run.shared; j <= batch.position[row]; ++j) {
    const float* v = run.v_row(j < context ? j : run.tail(row)[j - context]) + at;
    const F16 weight = f16_set(score[j]);
    for (int d = 0; d < D; ++d) acc[d] = f16_fma(f16_load(v + d * kLanes), weight, acc[d]);
  }
  float* y = run.p->y + ((row * run.p->heads) + run.kv_head * run.group + pair % run.group) * dim + at;
  for (int d = 0; d < D; ++d) f16_store_n(y + d * kLanes, f16_div(acc[d], sum), dim - at - d * kLanes);
}

void attend(Run run) {
  find_slots(run);
  pack_queries(run);
  score_slots(run);
  for (int64_t pair = 0; pair < run.pairs(); ++pair) {
    run.largest[pair] =
        largest_of(run.scores + pair * run.score_stride, run.p->batch.position[run.row(pair)] + 1);
  }
  add_shared(run);
  for (int64_t pair = 0; pair < run.pairs(); ++pair) {
    const F16 sum = f16_set(f16_fold(f16_load(run.sums + pair * kLanes)));
    int64_t at = 0;
    for (; at + 4 * kLanes <= run.padded(); at += 4 * kLanes) finish<4>(run, pair, sum, at);
    for (; at < run.padded(); at += kLanes) finish<1>(run, pair, sum, at);
  }
}

}  // namespace

void attention(const AttentionParams& p, Stream& stream) {
  const Batch& batch = p.batch;
  const int64_t kv_heads = p.kv.kv_heads, group = p.heads / kv_heads;
  const int64_t most_pairs = attention_rows(group) * group;
  const int64_t score_stride =
      p.scratch_stride / most_pairs / kLanes * kLanes - 2 * kLanes - head_dim_padded(p.kv.head_dim);
  // As many rows together as leave each thread two tasks.
  int64_t most = attention_rows(group);
  const auto blocks_of = [&](int64_t rows) { return (batch.rows + rows - 1) / rows; };
  while (most > 1 && blocks_of(most) * kv_heads < 2 * stream.threads->size()) most /= 2;
  const int64_t blocks = blocks_of(most);
  stream.threads->run(blocks * kv_heads, attention_work(p), [&](int64_t task, int thread) {
    float* sums = p.scratch + thread * p.scratch_stride;
    float* largest = sums + most_pairs * kLanes;
    float* vectors = largest + most_pairs * kLanes;
    float* scores = vectors + most_pairs * head_dim_padded(p.kv.head_dim);
    // Blocks of one KV head come one after the other, as its keys and values may still be in a cache.
    const int64_t kv_head = task / blocks, block = task % blocks;
    const int64_t end = (block + 1) * batch.rows / blocks;
    for (int64_t row = block * batch.rows / blocks, next; row < end; row = next) {
      next = row + 1;
      if (batch.position[row] < 0) continue;
      while (next < end && batch.sequence[next] == batch.sequence[row] && batch.position[next] >= 0) ++next;
      const int32_t* table = batch.block_tables + batch.sequence[row] * batch.table_stride;
      attend({&p, table, row, next - row, kv_head, group, score_stride, sums, largest, vectors, scores});
    }
  });
}

}  // namespace redrafter::REDRAFTER_ISA
