#include "ops/rope.h"

#include "base/threads.h"

namespace redrafter {
namespace {

void rotate(float* x, const float* cos_sin, int64_t dim) {
  const int64_t half = dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
    const float a = x[i], b = x[i + half];
    x[i] = a * c - b * s;
    x[i + half] = b * c + a * s;
  }
}

void append(const RopeParams& p, int64_t row, const float* k, const float* v) {
  const KvLayer& kv = p.kv;
  const int64_t slot = p.batch.slot[row];
  const int64_t block =
      p.batch.block_tables[p.batch.sequence[row] * p.batch.table_stride + slot / kBlockTokens];
  const int64_t offset = slot % kBlockTokens;
  const int64_t padded = head_dim_padded(kv.head_dim);
  for (int64_t h = 0; h < kv.kv_heads; ++h) {
    float* k_to = kv.k_floats() + block * kv.k_block_stride + h * kv.head_dim * kBlockTokens + offset;
    float* v_to = kv.v_floats() + block * kv.v_block_stride + (h * kBlockTokens + offset) * padded;
    for (int64_t i = 0; i < kv.head_dim; ++i) k_to[i * kBlockTokens] = k[h * kv.head_dim + i];
    for (int64_t i = 0; i < kv.head_dim; ++i) v_to[i] = v[h * kv.head_dim + i];
    for (int64_t i = kv.head_dim; i < padded; ++i) v_to[i] = 0.0f;
  }
}

}  // namespace

void rope_cpu(const RopeParams& p, Stream& stream) {
  const int64_t dim = p.kv.head_dim;
  const int64_t width = (p.heads + 2 * p.kv.kv_heads) * dim;
  constexpr int64_t kRowsPerTask = 4;
  const int64_t rows = p.batch.rows;
  stream.threads->run((rows + kRowsPerTask - 1) / kRowsPerTask, 4 * rows * width, [&](int64_t task, int) {
    for (int64_t r = task * kRowsPerTask; r < rows && r < (task + 1) * kRowsPerTask; ++r) {
      if (p.batch.slot[r] < 0) continue;
      float* q = p.qkv + r * width;
      const float* cos_sin = p.cos_sin + static_cast<int64_t>(p.batch.position[r]) * dim;
      for (int64_t h = 0; h < p.heads + p.kv.kv_heads; ++h) rotate(q + h * dim, cos_sin, dim);
      append(p, r, q + p.heads * dim, q + (p.heads + p.kv.kv_heads) * dim);
    }
  });
}

}  // namespace redrafter
