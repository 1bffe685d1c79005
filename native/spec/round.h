// One decode round over the active requests: draft -> pack -> forward -> accept -> commit.
// Plain decoding is the same round with trees of one node.
#pragma once

#include <memory>
#include <vector>

#include "kv/cache.h"
#include "model/forward.h"
#include "spec/accept.h"
#include "spec/drafter.h"
#include "spec/round_batch.h"

namespace redrafter {

// The most log-probabilities beside a token's own.
constexpr int64_t kMaxLogprobs = 64;

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
  int64_t rows = 0;  // rows it had in the forward pass, of which `outputs` got logits
  int64_t first_row = 0, outputs = 0, first_output = 0;
  int64_t first_path = 0;
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
  // In the memory of the backend.
  struct Arrays {
    int32_t* chosen;  // [rows] the target's tokens, by output
    int32_t* path;    // [2 rows] of each lane: length, then nodes of the accepted path
    int32_t* from;    // [depth + 1] slots to compact
    // Log-probabilities of one lane's run.
    int32_t *logprob_row, *logprob_token;  // [depth + 1]
    float* logprob;                        // [depth + 1]
    int32_t* top_token;                    // [depth + 1, kMaxLogprobs]
    float* top_logprob;                    // [depth + 1, kMaxLogprobs]
    uint8_t* sample_scratch;               // [threads, sample_scratch(vocab)]
  };
  static Arrays carve(Arena& arena, const Model& model);
  static RoundBatch::Limits batch_limits(const Model& model);

  void draft(Lane& lane);
  void build(const std::vector<Lane*>& lanes);
  void add_prompt_rows(Lane& lane);
  void add_tree_rows(Lane& lane);
  void choose(Lane& lane);
  void settle_prompt(Lane& lane);
  void settle_tree(Lane& lane, int64_t sequence);
  void compact(Lane& lane, int64_t sequence);
  void emit(Lane& lane);
  void add_logprobs(Lane& lane);

  Model& model_;
  KvCache& cache_;
  Drafter* drafter_;
  Stream& stream_;
  int64_t prefill_chunk_;
  RoundBatch batch_;
  DeviceBuffer workspace_;
  Arrays device_{};
  std::vector<int32_t> results_;  // chosen and path on the host
  std::vector<int32_t> path_;     // of the lane being settled
  std::vector<int32_t> slots_;
};

}  // namespace redrafter
