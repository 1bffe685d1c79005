// One forward pass of the target over a flat batch of rows. Written once, over the op table.
#pragma once

#include "base/arena.h"
#include "model/weights.h"

namespace redrafter {

// What the workspace is sized for.
struct ForwardLimits {
  int64_t rows;       // of a batch
  int64_t positions;  // of a sequence
  int64_t threads;    // of the stream that passes run on, at most
};

class Model {
 public:
  Model(ModelConfig config, ModelWeights weights, const Backend& backend, Stream& stream,
        ForwardLimits limits);

  const ModelConfig& config() const { return config_; }
  const ModelWeights& weights() const { return weights_; }
  const Backend& backend() const { return backend_; }
  const ForwardLimits& limits() const { return limits_; }
  int64_t workspace_bytes() const { return static_cast<int64_t>(workspace_.bytes()); }

  // Runs the rows of `batch`, appending their K and V to the cache (one KvLayer per layer), and leaves for
  // the rows listed in outputs[0 .. count) the post-final-norm hidden state in hidden() and the logits in
  // logits().
  void forward(const Batch& batch, const KvLayer* kv, const int32_t* outputs, int64_t count, Stream& stream);

  const float* hidden() const { return hidden_out_; }  // [count, hidden]
  float* logits() const { return logits_; }            // [count, vocab]

 private:
  void carve(Arena& arena);
  void layer(const LayerWeights& w, const KvLayer& kv, const Batch& batch, Stream& stream);

  ModelConfig config_;
  ModelWeights weights_;
  const Backend& backend_;
  ForwardLimits limits_;
  int64_t attention_stride_ = 0;
  DeviceBuffer workspace_;
  float* cos_sin_ = nullptr;     // [positions, head_dim / 2, 2]
  float* x_ = nullptr;           // [rows, hidden] residual stream
  float* normed_ = nullptr;      // [rows, hidden]
  float* qkv_ = nullptr;         // [rows, (heads + 2 kv_heads) * head_dim]
  float* attended_ = nullptr;    // [rows, heads * head_dim]
  float* gate_up_ = nullptr;     // [rows, 2 ffn]
  float* activated_ = nullptr;   // [rows, ffn]
  float* scratch_ = nullptr;     // [limits.threads, attention_stride_]
  float* hidden_out_ = nullptr;  // [rows, hidden]
  float* logits_ = nullptr;      // [rows, vocab]
  QuantGroup* room_ = nullptr;   // for rows of any product; null where no matrix is quantised
};

}  // namespace redrafter
