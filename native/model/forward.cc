#include "model/forward.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "model/rope_table.h"
#include "ops/matmul_quant.h"

namespace redrafter {

Model::Model(ModelConfig config, ModelWeights weights, const Backend& backend, Stream& stream,
             ForwardLimits limits)
    : config_(std::move(config)), weights_(std::move(weights)), backend_(backend), limits_(limits) {
  attention_stride_ = attention_scratch(config_.heads, config_.kv_heads, config_.head_dim, limits_.positions);
  Arena measure;
  carve(measure);
  workspace_ = DeviceBuffer(backend_, measure.used());
  Arena arena(workspace_.as<void>(), workspace_.bytes());
  carve(arena);
  if (cos_sin_ == nullptr) return;  // measuring
  const std::vector<float> table = rope_table(config_.rope, config_.head_dim, limits_.positions);
  backend_.upload(cos_sin_, table.data(), table.size() * sizeof(float), stream);
}

void Model::carve(Arena& arena) {
  const ModelConfig& c = config_;
  const int64_t rows = limits_.rows;
  cos_sin_ = arena.take<float>(limits_.positions * c.head_dim);
  x_ = arena.take<float>(rows * c.hidden);
  normed_ = arena.take<float>(rows * c.hidden);
  qkv_ = arena.take<float>(rows * (c.heads + 2 * c.kv_heads) * c.head_dim);
  attended_ = arena.take<float>(rows * c.heads * c.head_dim);
  gate_up_ = arena.take<float>(rows * 2 * c.ffn);
  activated_ = arena.take<float>(rows * c.ffn);
  scratch_ = arena.take<float>(limits_.threads * attention_stride_);
  hidden_out_ = arena.take<float>(rows * c.hidden);
  logits_ = arena.take<float>(rows * c.vocab);
  if (any_quantised(weights_)) {
    room_ = arena.take<QuantGroup>(quant_room(rows, std::max({c.hidden, c.heads * c.head_dim, c.ffn})));
  }
}

void Model::layer(const LayerWeights& w, const KvLayer& kv, const Batch& batch, Stream& stream) {
  const ModelConfig& c = config_;
  const int64_t rows = batch.rows, q = c.heads * c.head_dim, width = q + 2 * c.kv_heads * c.head_dim;
  const float eps = static_cast<float>(c.norm_eps);
  backend_.norm({x_, normed_, w.attention_norm, nullptr, c.hidden, c.hidden, rows, 1, c.hidden, eps}, stream);
  backend_.matmul({normed_, w.qkv, w.qkv_bias, nullptr, qkv_, rows, c.hidden, width, room_}, stream);
  if (w.q_norm != nullptr) {
    backend_.norm({qkv_, qkv_, w.q_norm, nullptr, width, width, rows, c.heads, c.head_dim, eps}, stream);
    backend_.norm({qkv_ + q, qkv_ + q, w.k_norm, nullptr, width, width, rows, c.kv_heads, c.head_dim, eps},
                  stream);
  }
  backend_.rope({qkv_, cos_sin_, kv, batch, c.heads}, stream);
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
  backend_.attention({qkv_, attended_, kv, batch, c.heads, scale, scratch_, attention_stride_}, stream);
  backend_.matmul({attended_, w.o, w.o_bias, x_, x_, rows, q, c.hidden, room_}, stream);

  backend_.norm({x_, normed_, w.ffn_norm, nullptr, c.hidden, c.hidden, rows, 1, c.hidden, eps}, stream);
  backend_.matmul({normed_, w.gate_up, w.gate_up_bias, nullptr, gate_up_, rows, c.hidden, 2 * c.ffn, room_},
                  stream);
  backend_.act({gate_up_, activated_, rows, c.ffn}, stream);
  backend_.matmul({activated_, w.down, w.down_bias, x_, x_, rows, c.ffn, c.hidden, room_}, stream);
}

void Model::forward(const Batch& batch, const KvLayer* kv, const int32_t* outputs, int64_t count,
                    Stream& stream) {
  const ModelConfig& c = config_;
  REDRAFTER_CHECK(batch.rows >= 1 && batch.rows <= limits_.rows && count <= batch.rows);
  backend_.embed({batch.token, weights_.embedding, x_, batch.rows}, stream);
  for (int64_t i = 0; i < c.layers; ++i) layer(weights_.layers[static_cast<size_t>(i)], kv[i], batch, stream);
  if (count == 0) return;
  backend_.norm({x_, hidden_out_, weights_.final_norm, outputs, c.hidden, c.hidden, count, 1, c.hidden,
                 static_cast<float>(c.norm_eps)},
                stream);
  backend_.matmul({hidden_out_, weights_.head, nullptr, nullptr, logits_, count, c.hidden, c.vocab, room_},
                  stream);
}

}  // namespace redrafter
