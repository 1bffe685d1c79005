// The kernels of the target's forward pass, of choosing and of the cache, at one model's shapes.
#include <algorithm>

#include "case.h"

namespace redrafter::lab {

Batch tree_batch(Memory& memory, int64_t context, int64_t nodes) {
  std::vector<int32_t> token, position, slot, sequence, contexts, tail_begin{0}, tail_slots, table;
  for (int64_t n = 0; n < nodes; ++n) {
    const int64_t depth = n == 0 ? 0 : 1 + (n - 1) % 4;
    std::vector<int32_t> path{static_cast<int32_t>(context)};
    for (int64_t d = 1; d <= depth; ++d) path.push_back(static_cast<int32_t>(context + n - depth + d));
    token.push_back(static_cast<int32_t>(n));
    position.push_back(static_cast<int32_t>(context + depth));
    slot.push_back(static_cast<int32_t>(context + n));
    sequence.push_back(0);
    contexts.push_back(static_cast<int32_t>(context));
    tail_slots.insert(tail_slots.end(), path.begin(), path.end());
    tail_begin.push_back(static_cast<int32_t>(tail_slots.size()));
  }
  const int64_t blocks = (context + nodes) / kBlockTokens + 1;
  for (int64_t i = 0; i < blocks; ++i) table.push_back(static_cast<int32_t>(blocks - 1 - i));
  Batch b;
  b.rows = nodes;
  b.token = memory.of(token);
  b.position = memory.of(position);
  b.slot = memory.of(slot);
  b.sequence = memory.of(sequence);
  b.context = memory.of(contexts);
  b.tail_begin = memory.of(tail_begin);
  b.tail_slots = memory.of(tail_slots);
  b.block_tables = memory.of(table);
  b.table_stride = blocks;
  b.sequences = 1;
  b.max_positions = context + 5;
  return b;
}

KvLayer cache_layer(Memory& memory, const ModelShape& m, int64_t tokens) {
  const int64_t blocks = tokens / kBlockTokens + 1;
  KvLayer kv = memory.backend().kv_layout(m.kv_heads, m.head_dim, DType::kBF16);
  const int64_t halves = static_cast<int64_t>(dtype_bytes(kv.dtype)) / 2;  // two bf16 numbers make an f32
  kv.k = memory.matrix(blocks * halves * kv.k_block_stride / 16, 16).data;
  kv.v = memory.matrix(blocks * halves * kv.v_block_stride / 16, 16).data;
  return kv;
}

namespace {

Case matmul_case(DType dtype, const char* what, int64_t rows, int64_t n, int64_t k, bool residual) {
  return {"matmul",
          std::string(what) + " " + std::to_string(n) + " x " + std::to_string(k),
          rows,
          matmul_cost(dtype, rows, n, k, residual),
          [=](Memory& memory) -> Run {
            const std::vector<Matrix> w = memory.matrices(n, k, dtype);
            QuantGroup* room = memory.room(rows, k);
            const float* x = memory.floats(rows * k);
            float* y = memory.floats(rows * n);
            return [=, &backend = memory.backend()](Stream& stream, int64_t turn) {
              const Matrix& weights = w[static_cast<size_t>(turn) % w.size()];
              backend.matmul({x, weights, nullptr, residual ? y : nullptr, y, rows, k, n, room}, stream);
            };
          },
          dtype};
}

Case attention_case(const ModelShape& m, int64_t nodes, int64_t context) {
  return {"attention", std::to_string(context) + " context", nodes, attention_cost(m, nodes, context),
          [=](Memory& memory) -> Run {
            const Batch batch = tree_batch(memory, context, nodes);
            std::vector<KvLayer> layers;  // take turns, so that the cache is read from memory
            for (int i = 0; i < 8; ++i) layers.push_back(cache_layer(memory, m, context + nodes));
            const float* qkv = memory.floats(nodes * m.qkv());
            float* y = memory.empty<float>(nodes * m.heads * m.head_dim);
            const int64_t stride = attention_scratch(m.heads, m.kv_heads, m.head_dim, batch.max_positions);
            float* scratch = memory.empty<float>(memory.threads() * stride);
            return [=, &backend = memory.backend()](Stream& stream, int64_t turn) {
              AttentionParams p{};
              p.qkv = qkv, p.y = y, p.batch = batch, p.heads = m.heads, p.scale = 0.088f;
              p.scratch = scratch, p.scratch_stride = stride;
              p.kv = layers[static_cast<size_t>(turn) % layers.size()];
              backend.attention(p, stream);
            };
          }};
}

Case rope_case(const ModelShape& m, int64_t rows) {
  const double moved = 4.0 * count(rows * m.qkv()) + 4.0 * count(rows * (m.heads + m.kv_heads) * m.head_dim) +
                       2.0 * count(m.kv_element_bytes * rows * m.kv_heads * m.head_dim);
  return {"rope", "q, k, append", rows, {moved, 0}, [=](Memory& memory) -> Run {
            const int64_t context = 512;
            const Batch batch = tree_batch(memory, context, rows);
            const KvLayer kv = cache_layer(memory, m, context + rows);
            float* qkv = memory.floats(rows * m.qkv());
            const float* cos_sin = memory.floats((context + rows) * m.head_dim);
            return [=, &backend = memory.backend()](Stream& stream, int64_t) {
              backend.rope({qkv, cos_sin, kv, batch, m.heads}, stream);
            };
          }};
}

Case norm_case(const ModelShape& m, int64_t rows) {
  return {
      "norm", std::to_string(m.hidden), rows, {8.0 * count(rows * m.hidden), 0}, [=](Memory& memory) -> Run {
        const float *x = memory.floats(rows * m.hidden), *weight = memory.floats(m.hidden);
        float* y = memory.empty<float>(rows * m.hidden);
        return [=, &backend = memory.backend()](Stream& stream, int64_t) {
          backend.norm({x, y, weight, nullptr, m.hidden, m.hidden, rows, 1, m.hidden, 1e-5f}, stream);
        };
      }};
}

Case act_case(const ModelShape& m, int64_t rows) {
  return {"act", std::to_string(m.ffn), rows, {12.0 * count(rows * m.ffn), 0}, [=](Memory& memory) -> Run {
            const float* gate_up = memory.floats(rows * 2 * m.ffn);
            float* y = memory.empty<float>(rows * m.ffn);
            return [=, &backend = memory.backend()](Stream& stream, int64_t) {
              backend.act({gate_up, y, rows, m.ffn}, stream);
            };
          }};
}

Case embed_case(const ModelShape& m, int64_t rows) {
  return {"embed",
          std::to_string(m.vocab) + " x " + std::to_string(m.hidden),
          rows,
          {weight_bytes(m.dtype, rows, m.hidden) + 4.0 * count(rows * m.hidden), 0},
          [=](Memory& memory) -> Run {
            const Matrix table = memory.matrix(m.vocab, m.hidden, m.dtype);
            std::vector<int32_t> token;
            for (int64_t r = 0; r < rows; ++r) token.push_back(static_cast<int32_t>(r * 997 % m.vocab));
            const int32_t* tokens = memory.of(token);
            float* y = memory.empty<float>(rows * m.hidden);
            return [=, &backend = memory.backend()](Stream& stream, int64_t) {
              backend.embed({tokens, table, y, rows}, stream);
            };
          },
          m.dtype};
}

Case sample_case(const ModelShape& m, int64_t rows, bool greedy) {
  return {"sample",
          greedy ? "greedy" : "top-p 0.9",
          rows,
          {4.0 * count(rows * m.vocab), 0},
          [=](Memory& memory) -> Run {
            const float* logits = memory.floats(rows * m.vocab, 8.0f);
            const SampleSpec spec{greedy ? 0.0f : 0.8f, 0, greedy ? 1.0f : 0.9f, 0.0f, 7};
            const SampleSpec* specs = memory.of(std::vector<SampleSpec>(static_cast<size_t>(rows), spec));
            const int32_t* position = memory.of(std::vector<int32_t>(static_cast<size_t>(rows), 100));
            int32_t* token = memory.empty<int32_t>(rows);
            const int64_t needed = std::max(8 * rows * m.vocab, memory.threads() * sample_scratch(m.vocab));
            void* scratch = memory.bytes(static_cast<size_t>(needed));
            return [=, &backend = memory.backend()](Stream& stream, int64_t) {
              backend.sample({logits, specs, position, token, scratch, rows, m.vocab}, stream);
            };
          }};
}

Case logprob_case(const ModelShape& m, int64_t rows) {
  return {"logprob", "top 5", rows, {4.0 * count(rows * m.vocab), 0}, [=](Memory& memory) -> Run {
            const float* logits = memory.floats(rows * m.vocab, 8.0f);
            std::vector<int32_t> index;
            for (int64_t r = 0; r < rows; ++r) index.push_back(static_cast<int32_t>(r));
            const int32_t* row = memory.of(index);
            float *value = memory.empty<float>(rows), *top_value = memory.empty<float>(rows * 5);
            int32_t* top = memory.empty<int32_t>(rows * 5);
            return [=, &backend = memory.backend()](Stream& stream, int64_t) {
              backend.logprob({logits, row, row, value, top, top_value, rows, m.vocab, 5}, stream);
            };
          }};
}

Case compact_case(const ModelShape& m, int64_t path_length) {
  const double moved =
      2 * 2 * count(m.kv_element_bytes) * count(path_length * m.kv_heads * m.head_dim * m.layers);
  return {"kv_compact", "all layers", path_length, {moved, 0}, [=](Memory& memory) -> Run {
            const Batch batch = tree_batch(memory, 512, 64);
            KvLayer kv = cache_layer(memory, m, 576 * m.layers);
            std::vector<int32_t> path;
            for (int64_t i = 0; i < path_length; ++i) path.push_back(static_cast<int32_t>(3 * i));
            const int32_t* nodes = memory.of(path);
            const int32_t* committed = memory.of(std::vector<int32_t>{512});
            const int32_t* length = memory.of(std::vector<int32_t>{static_cast<int32_t>(path_length)});
            const int64_t layer_stride = (576 / kBlockTokens) * kv.k_block_stride;
            return [=, &backend = memory.backend()](Stream& stream, int64_t) {
              backend.kv_compact({kv, batch.block_tables, committed, nodes, length, 1, batch.table_stride,
                                  path_length, m.layers, layer_stride},
                                 stream);
            };
          }};
}

}  // namespace

std::vector<Case> kernel_cases(const ModelShape& m) {
  std::vector<Case> all;
  for (const int64_t rows : {1, 4, 8, 16, 32, 64, 512}) {
    all.push_back(matmul_case(m.dtype, "qkv", rows, m.qkv(), m.hidden, false));
    all.push_back(matmul_case(m.dtype, "o", rows, m.hidden, m.heads * m.head_dim, true));
    all.push_back(matmul_case(m.dtype, "gate_up", rows, 2 * m.ffn, m.hidden, false));
    all.push_back(matmul_case(m.dtype, "down", rows, m.hidden, m.ffn, true));
    if (rows <= 64) all.push_back(matmul_case(m.dtype, "head", rows, m.vocab, m.hidden, false));
  }
  for (const int64_t times : {1, 8, 64}) {
    for (const int64_t nodes : {1, 5, 10, 32, 64}) all.push_back(attention_case(m, nodes, times * m.context));
  }
  for (const int64_t rows : {1, 32, 512}) {
    all.push_back(embed_case(m, rows));
    all.push_back(norm_case(m, rows));
    all.push_back(rope_case(m, rows));
    all.push_back(act_case(m, rows));
  }
  for (const int64_t rows : {1, 32}) {
    all.push_back(sample_case(m, rows, true));
    all.push_back(sample_case(m, rows, false));
    all.push_back(logprob_case(m, rows));
  }
  all.push_back(compact_case(m, 4));
  return all;
}

}  // namespace redrafter::lab
