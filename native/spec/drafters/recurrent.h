// The Recurrent Drafter (arXiv 2403.09919): beam search over a small recurrent network that reads the
// target's last hidden state. The hidden state h is constant over the steps of one round, only the recurrent
// state changes; it starts at zero and the first input is the root token.
#pragma once

#include "base/arena.h"
#include "spec/drafter.h"
#include "spec/drafters/recurrent_weights.h"

namespace redrafter {

class RecurrentDrafter final : public Drafter {
 public:
  // `embedding` is the target's, which the drafter shares.
  RecurrentDrafter(RecurrentWeights weights, Matrix embedding, const Backend& backend, Stream& stream);

  void propose(const Proposal& proposal, DraftTree& tree) override;
  int64_t weight_bytes() const override { return weights_.bytes; }
  int64_t workspace_bytes() const override { return static_cast<int64_t>(workspace_.bytes()); }
  const RecurrentWeights& weights() const { return weights_; }

 private:
  void carve(Arena& arena);
  // Extends `rows` live beams by one token; returns how many are live then.
  int64_t step(const Proposal& proposal, int64_t rows, int64_t step);

  RecurrentWeights weights_;
  Matrix embedding_;
  const Backend& backend_;
  Stream& stream_;
  DeviceBuffer workspace_;
  int32_t* last_ = nullptr;      // [W] newest token of each beam
  float* state_ = nullptr;       // [W, hidden]
  float* state_next_ = nullptr;  // [W, hidden]
  float* cell_scratch_ = nullptr;
  float* z_ = nullptr;       // [W, exit]
  float* z_next_ = nullptr;  // [W, exit]
  float* mix_scratch_ = nullptr;
  int32_t* top_token_ = nullptr;  // [W, W]
  float* top_logit_ = nullptr;    // [W, W]
  float* log_sum_exp_ = nullptr;  // [W]
  float* head_scratch_ = nullptr;
  float* score_ = nullptr;       // [W]
  float* score_next_ = nullptr;  // [W]
  int32_t* beams_ = nullptr;     // [W, 1 + L]
  int32_t* beams_next_ = nullptr;
  int32_t* live_ = nullptr;  // [1]
  float* beam_scratch_ = nullptr;
  int32_t* unpack_ = nullptr;  // [W, 1 + L]
  int32_t* nodes_ = nullptr;   // [1]
};

}  // namespace redrafter
