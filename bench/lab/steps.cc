// A whole forward pass of a target with random weights: plain decoding at one row, verification of a draft
// tree at more.
#include "model/forward.h"
#include "rounds.h"

namespace redrafter::lab {

ModelConfig random_config(const ModelShape& m) {
  ModelConfig c;
  c.vocab = m.vocab, c.hidden = m.hidden, c.layers = m.layers, c.heads = m.heads, c.kv_heads = m.kv_heads;
  c.head_dim = m.head_dim, c.ffn = m.ffn, c.max_positions = 2 * m.context;
  c.rope.theta = 10000;
  return c;
}

ModelWeights random_weights(Memory& memory, const ModelShape& m) {
  ModelWeights w;
  w.embedding = memory.matrix(m.vocab, m.hidden);
  for (int64_t i = 0; i < m.layers; ++i) {
    LayerWeights layer{};
    layer.attention_norm = memory.floats(m.hidden);
    layer.qkv = memory.matrix(m.qkv(), m.hidden);
    layer.o = memory.matrix(m.hidden, m.heads * m.head_dim);
    layer.ffn_norm = memory.floats(m.hidden);
    layer.gate_up = memory.matrix(2 * m.ffn, m.hidden);
    layer.down = memory.matrix(m.hidden, m.ffn);
    w.layers.push_back(layer);
  }
  w.final_norm = memory.floats(m.hidden);
  w.head = memory.matrix(m.vocab, m.hidden);
  return w;
}

namespace {

// What has to be read and written at least: the weights, the cache, logits.
Cost step_cost(const ModelShape& m, int64_t rows) {
  Cost cost{4.0 * count(rows * m.vocab), 0};
  const auto add = [&cost](const Cost& part, int64_t times) {
    cost.bytes += count(times) * part.bytes, cost.flops += count(times) * part.flops;
  };
  const auto product = [&](int64_t n, int64_t k) {
    return Cost{2 * count(n) * count(k), 2 * count(rows) * count(n) * count(k)};
  };
  add(product(m.qkv(), m.hidden), m.layers);
  add(product(m.hidden, m.heads * m.head_dim), m.layers);
  add(product(2 * m.ffn, m.hidden), m.layers);
  add(product(m.hidden, m.ffn), m.layers);
  add(product(m.vocab, m.hidden), 1);
  add({2 * count(m.kv_element_bytes) * count(m.context * m.kv_heads * m.head_dim),
       4 * count(rows * m.context * m.heads * m.head_dim)},
      m.layers);
  return cost;
}

Case step_case(const ModelShape& m, int64_t rows) {
  return {
      "step", std::to_string(m.context) + " context", rows, step_cost(m, rows), [=](Memory& memory) -> Run {
        auto model = std::make_shared<Model>(random_config(m), random_weights(memory, m), memory.backend(),
                                             memory.stream(), ForwardLimits{rows, 2 * m.context, 1});
        const Batch batch = tree_batch(memory, m.context, rows);
        std::vector<KvLayer> layers;
        for (int64_t i = 0; i < m.layers; ++i) layers.push_back(cache_layer(memory, m, m.context + rows));
        std::vector<int32_t> all;
        for (int64_t r = 0; r < rows; ++r) all.push_back(static_cast<int32_t>(r));
        const int32_t* outputs = memory.of(all);
        return [=](Stream& stream, int64_t) { model->forward(batch, layers.data(), outputs, rows, stream); };
      }};
}

}  // namespace

std::vector<Case> step_cases(const ModelShape& m) {
  std::vector<Case> all;
  for (const int64_t rows : {1, 2, 4, 8, 16, 32, 64}) all.push_back(step_case(m, rows));
  return all;
}

}  // namespace redrafter::lab
