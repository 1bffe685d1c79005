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

  void propose(const Proposal& proposal, const DraftTrees& trees) override;
  int64_t weight_bytes() const override { return weights_.bytes; }
  int64_t workspace_bytes() const override { return static_cast<int64_t>(workspace_.bytes()); }
  const RecurrentWeights& weights() const { return weights_; }

 private:
  // Rows of the workspace: so many beams, of one lane or of several, are extended together.
  static constexpr int64_t kRows = kMaxBeamWidth;

  void carve(Arena& arena);
  void propose_some(const Proposal& proposal, const DraftTrees& trees);  // lanes * width <= kRows
  // Extends the `beams` beams of each lane by one token.
  void step(const Proposal& proposal, int64_t beams, int64_t step);

  RecurrentWeights weights_;
  Matrix embedding_;
  const Backend& backend_;
  Stream& stream_;
  DeviceBuffer workspace_;
  // [rows, ...]: the beams of all lanes, lane by lane.
  float* state_ = nullptr;       // [hidden]
  float* state_next_ = nullptr;  // [hidden]
  float* cell_scratch_ = nullptr;
  float* z_ = nullptr;       // [exit]
  float* z_next_ = nullptr;  // [exit]
  float* mix_scratch_ = nullptr;
  int32_t* top_token_ = nullptr;  // [W]
  float* top_logit_ = nullptr;    // [W]
  float* log_sum_exp_ = nullptr;
  float* head_scratch_ = nullptr;
  float* scores_ = nullptr;  // [1 + L]
  float* scores_next_ = nullptr;
  int32_t* beams_ = nullptr;  // [1 + L]
  int32_t* beams_next_ = nullptr;
  int32_t* live_ = nullptr;  // by lane
  float* beam_scratch_ = nullptr;
  int32_t* unpack_ = nullptr;  // [1 + L]
  int32_t* pack_scratch_ = nullptr;
  QuantGroup* room_ = nullptr;  // for rows of any product; null where no matrix is quantised
};

}  // namespace redrafter
