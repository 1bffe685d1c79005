// One decode round over the active requests: draft -> pack -> forward -> accept -> commit.
// Plain decoding is the same round with trees of one node.
#pragma once

#include <memory>
#include <vector>

#include "kv/cache.h"
#include "model/forward.h"
#include "spec/accept.h"
#include "spec/drafter.h"

namespace redrafter {

// What a round needs to know of a request, and what it leaves there. `tokens` and `kv` belong to its session:
// while prefilling, tokens[kv->length() ..] wait for their KV; while decoding, tokens.back() is the root, the
// one token whose KV is not in the cache yet.
struct Lane {
  Lane(const Backend& backend, int64_t hidden)
      : hidden_state(backend, static_cast<size_t>(hidden) * sizeof(float)) {}

  std::vector<int32_t>* tokens = nullptr;
  KvSequence* kv = nullptr;
  SampleSpec sample;
  StopRules stop;
  bool generates = true;   // false: only append the prompt to the cache
  int64_t beam_width = 0;  // 0: plain decoding
  int64_t beam_length = 0;
  int64_t max_tokens = 0;  // to generate in all; prompt + max_tokens fits the context
  int64_t logprobs = -1;   // -1: none, else how many of the most probable

  // State.
  DeviceBuffer hidden_state;  // [hidden] of the row that chose the root
  bool decoding = false;      // the prompt is in the cache and the root is chosen
  int64_t generated = 0;

  // Of the last round.
  DraftTree tree{max_tree_nodes(kMaxBeamWidth, kMaxBeamLength)};
  int64_t rows = 0;  // rows it had in the forward pass
  std::vector<int32_t> emitted;
  int64_t accepted = 0;  // emitted tokens that had been drafted; they come first
  std::vector<float> logprob;
  std::vector<int32_t> top_token;
  std::vector<float> top_logprob;
  Finish finish = Finish::kNone;
  bool failed = false;  // every logit was NaN
};

// Drafting, and the forward pass with choosing, accepting and committing; building the batch is in neither.
struct RoundTimes {
  double draft_ms = 0.0, verify_ms = 0.0;
};

class Round {
 public:
  // drafter may be null. prefill_chunk is the most prompt tokens of one request in a pass.
  Round(Model& model, KvCache& cache, Drafter* drafter, Stream& stream, int64_t prefill_chunk);

  // Rows the lane would bring into the next pass at most.
  int64_t rows_wanted(const Lane& lane) const;

  // The rows of all lanes together must fit the model's limit. Their KV slots must be reserved.
  RoundTimes run(const std::vector<Lane*>& lanes);

  int64_t prefill_chunk() const { return prefill_chunk_; }

  // Backend memory that a round over this model takes beside those of model, drafter and cache.
  static int64_t workspace_bytes(const Model& model);

 private:
  void draft(Lane& lane);
  void build(const std::vector<Lane*>& lanes);
  void add_prompt_rows(Lane& lane, int32_t sequence);
  void add_tree_rows(Lane& lane, int32_t sequence);
  void add_row(int32_t token, int64_t position, int64_t slot, int32_t sequence, int64_t context);
  void add_output(const Lane& lane, int64_t position);
  Batch batch() const;
  void choose(const Lane& lane, int64_t first_output, int64_t count);
  void settle_prompt(Lane& lane, int64_t output);
  void settle_tree(Lane& lane, int64_t first_output);
  void emit(Lane& lane, int64_t first_output, int64_t path_length);

  Model& model_;
  KvCache& cache_;
  Drafter* drafter_;
  Stream& stream_;
  int64_t prefill_chunk_;
  int64_t table_stride_;

  // The batch being built, on the host.
  std::vector<int32_t> token_, position_, slot_, sequence_, context_, tail_begin_, tail_slots_, tables_;
  std::vector<int32_t> outputs_;          // rows whose logits are wanted
  std::vector<SampleSpec> spec_;          // [outputs]
  std::vector<int32_t> choose_position_;  // [outputs]
  std::vector<int32_t> chosen_;           // [outputs] the target's tokens
  std::vector<int32_t> path_;             // nodes of the accepted path
  std::vector<int32_t> path_rows_;        // their cache slots, then their rows of logits
  DeviceBuffer sample_scratch_;
};

}  // namespace redrafter
