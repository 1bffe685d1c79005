// One decode round over the active requests: draft -> pack -> forward -> accept -> commit.
// Plain decoding is the same round with trees of one node.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "kv/cache.h"
#include "model/forward.h"
#include "spec/accept.h"
#include "spec/acceptance.h"
#include "spec/costs.h"
#include "spec/drafter.h"
#include "spec/hidden_rows.h"
#include "spec/round_batch.h"

namespace redrafter {

// What a round needs to know of a request, and what it leaves there. `tokens` and `kv` belong to its session:
// while prefilling, tokens[kv->length() ..] wait for their KV; while decoding, tokens.back() is the root, the
// one token whose KV is not in the cache yet.
struct Lane {
  std::vector<int32_t>* tokens = nullptr;
  KvSequence* kv = nullptr;
  SampleSpec sample;
  StopRules stop;
  bool generates = true;   // false: only append the prompt to the cache
  int64_t beam_width = 0;  // 0: plain decoding
  int64_t beam_length = 0;
  int64_t beam_budget = 0;  // nodes of its tree at most, the root included; 0: as many as the shape has
  int64_t max_tokens = 0;   // to generate in all; prompt + max_tokens fits the context
  int64_t logprobs = -1;    // -1: none, else how many of the most probable

  // State.
  HiddenRows::Taken hidden;  // of the row that chose the root
  bool decoding = false;     // the prompt is in the cache and the root is chosen
  int64_t generated = 0;
  std::optional<Acceptance> acceptance;  // where its shape is chosen anew for each round (spec/adaptive.h)

  // Of the last round.
  int64_t rows = 0;           // it had in the forward pass
  int64_t draft_nodes = 0;    // that its tree had below the root
  int64_t draft_depth = 0;    // of its tree
  int64_t on_first_beam = 0;  // accepted nodes of the most probable beam
  std::vector<int32_t> emitted;
  int64_t accepted = 0;  // emitted tokens that had been drafted; they come first
  std::vector<float> logprob;
  std::vector<int32_t> top_token;
  std::vector<float> top_logprob;
  Finish finish = Finish::kNone;
  bool failed = false;  // every logit was NaN
};

// Drafting, and the forward pass with choosing, accepting and committing; building the batch is in neither.
// Where the host sees a round only as a whole, all of it is verify_ms.
struct RoundTimes {
  double draft_ms = 0.0, verify_ms = 0.0;
};

class Round {
 public:
  // drafter may be null. prefill_chunk is the most prompt tokens of one request in a pass.
  Round(Model& model, KvCache& cache, Drafter* drafter, Stream& stream, int64_t prefill_chunk);
  Round(const Round&) = delete;
  Round& operator=(const Round&) = delete;
  ~Round() { forget_graphs(); }

  // Rows the lane would bring into the next pass at most.
  int64_t rows_wanted(const Lane& lane) const;

  // The rows of all lanes together must fit the model's limit. Their KV slots must be reserved, and lanes
  // that generate must have a row of hidden().
  RoundTimes run(const std::vector<Lane*>& lanes);

  // What the last round was, as far as its time goes.
  RoundShape last_shape() const;

  HiddenRows& hidden() { return hidden_; }
  int64_t prefill_chunk() const { return prefill_chunk_; }

  // Backend memory that a round over this model takes beside those of model, drafter and cache.
  static int64_t workspace_bytes(const Model& model);

 private:
  static constexpr int64_t kRun = kMaxBeamLength + 1;  // the most tokens that a lane emits in a round

  static constexpr int64_t kLogprobsAtOnce = 64;  // beside each token's own, for all tokens of a run

  // What a round finds out of each lane; comes back in one copy.
  struct Results {
    int32_t* nodes;        // [lanes] of its tree
    int32_t* path_length;  // [lanes]
    int32_t* path;         // [lanes, kRun]
    int32_t* emitted;      // [lanes, kRun]
  };
  // In the memory of the backend.
  struct Arrays {
    uint8_t* results;
    int32_t *tree_token, *tree_parent, *tree_depth;  // [rows] the trees of all lanes
    int32_t* chosen;                                 // [rows] the target's tokens, by output
    // Log-probabilities of one lane's run.
    int32_t *logprob_row, *logprob_token;  // [kRun]
    float* logprob;                        // [kRun]
    int32_t* top_token;                    // [kRun, kLogprobsAtOnce], or [vocab] if that is more
    float* top_logprob;                    // likewise
    uint8_t* sample_scratch;               // [threads, sample_scratch(vocab)]
  };
  // Lanes that draft with one shape, one after another in order_.
  struct Group {
    int64_t first, lanes, width, length;
    int64_t budget;      // nodes of a tree at most
    int64_t first_node;  // in the arrays of trees
  };
  static constexpr size_t kMaxGraphs = 64;

  static Results carve_results(Arena& arena, int64_t lanes);
  static size_t results_capacity(const Model& model);
  static Arrays carve(Arena& arena, const Model& model);
  static RoundBatch::Limits batch_limits(const Model& model);

  int64_t draft_length(const Lane& lane) const;
  int64_t budget(const Lane& lane) const;
  void sort(const std::vector<Lane*>& lanes);
  void place_results();
  void fill_lanes();
  void fill_rows(const int32_t* nodes);
  void add_prompt(const Lane& lane);
  RoundTimes run_in_steps();
  RoundTimes run_at_once();
  void draft();
  void place_trees();
  void verify();
  void work();
  void fetch_results();
  int64_t positions_bound() const;
  std::vector<int64_t> shape() const;
  void launch_work();
  void forget_graphs();
  void settle_prompt(Lane& lane, int64_t index);
  void settle_tree(Lane& lane, int64_t index);
  void emit(Lane& lane, int64_t index);
  void add_logprobs(Lane& lane, int64_t index);

  Model& model_;
  KvCache& cache_;
  Drafter* drafter_;
  Stream& stream_;
  int64_t prefill_chunk_;
  RoundBatch batch_;
  HiddenRows hidden_;
  DeviceBuffer workspace_;
  Arrays device_{};
  HostBuffer host_results_;
  size_t results_bytes_ = 0;
  Results results_{}, device_results_{};  // of this round, on the host and on the backend
  std::vector<Lane*> order_;              // as their lanes are in the batch
  std::vector<Group> groups_;
  int64_t drafting_ = 0, choosing_ = 0;  // how many of them draft, choose tokens
  std::vector<int32_t> logprob_rows_;
  std::map<std::vector<int64_t>, void*> graphs_;  // by shape; null: it came once
};

}  // namespace redrafter
