// What a request changes in the logits that its tokens are chosen from, and what is known of its text for
// that.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/adjust.h"
#include "spec/accept.h"

namespace redrafter {

// As the options of `generate` say it (lib/option-types.ts).
struct ControlSpec {
  float repetition = 1.0f, presence = 0.0f, frequency = 0.0f;
  int64_t min_tokens = 0;
  std::vector<int32_t> banned, bias_ids;
  std::vector<float> bias;  // of bias_ids

  bool penalizes() const { return repetition != 1.0f || presence != 0.0f || frequency != 0.0f; }
  bool any() const { return penalizes() || min_tokens > 0 || !banned.empty() || !bias_ids.empty(); }
};

// The committed history of a lane as the op `adjust` takes it: kept up as tokens come, so that a round
// neither counts nor sorts.
class LaneControl {
 public:
  // `prompt`: all tokens before the first generated one. Ids must be in the vocabulary.
  LaneControl(const ControlSpec& spec, const StopRules& stop, const std::vector<int32_t>& prompt);

  void add(const std::vector<int32_t>& generated);
  // Some tokens were dropped, and the lane holds these: what was generated stays so, whether or not it is
  // there.
  void hold(const std::vector<int32_t>& tokens);

  // Whether it changes anything from here on: minimal lengths end.
  bool acts() const { return acts_always_ || generated_ < min_tokens_; }
  // Where its entries and what is saved of its logits lie is for the caller to fill in.
  AdjustLane lane() const;
  // Ids that the target takes never, or hardly ever, wherever they would come.
  const std::vector<int32_t>& undrafted() const { return undrafted_; }
  // By rising id.
  const std::vector<AdjustEntry>& entries() const { return entries_; }
  // Entries it has at most after so many more tokens.
  int64_t most_entries(int64_t tokens, int64_t vocab) const;

 private:
  AdjustEntry& entry(int32_t id);

  AdjustLane lane_;
  std::vector<AdjustEntry> entries_;
  std::vector<int32_t> undrafted_;
  bool penalizes_, acts_always_;
  int64_t min_tokens_, generated_ = 0;
};

}  // namespace redrafter
