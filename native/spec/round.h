// One decode round over the active requests: draft -> pack -> forward -> accept -> commit.
// Plain decoding is the same round with trees of one node.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "kv/cache.h"
#include "model/forward.h"
#include "spec/accept.h"
#include "spec/acceptance.h"
#include "spec/control_batch.h"
#include "spec/costs.h"
#include "spec/draft_masks.h"
#include "spec/drafter.h"
#include "spec/hidden_rows.h"
#include "spec/logprobs.h"
#include "spec/mask_batch.h"
#include "spec/round_batch.h"
#include "spec/round_graphs.h"

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
  std::unique_ptr<LaneControl> control;  // null: tokens are chosen from the logits as they are
  std::unique_ptr<ControlBatch::Room> control_room;
  std::unique_ptr<LaneGrammar> grammar;  // null: its text need not follow one

  // Of the next round, while it does not decode: at most that many tokens of the prompt are read.
  int64_t prompt_rows = 0;

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
  bool failed = false;  // every logit was NaN, or its token is not to be chosen, or it has no masks
};

// Drafting, and the forward pass with choosing, accepting and committing; building the batch is in neither.
// Where the host sees a round only as a whole, all of it is verify_ms.
struct RoundTimes {
  double draft_ms = 0.0, verify_ms = 0.0;
};

class Round {
 public:
  // drafter may be null; so may exchange, where no lane has a grammar.
  Round(Model& model, KvCache& cache, Drafter* drafter, Stream& stream, MaskExchange* exchange = nullptr);
  Round(const Round&) = delete;
  Round& operator=(const Round&) = delete;

  // Rows that the lane can use at most: of its tree, or the whole rest of its prompt.
  int64_t rows_wanted(const Lane& lane) const;

  // The rows of all lanes together must fit the model's limit: those of rows_wanted() where a lane decodes,
  // else prompt_rows, at least one. Their KV slots must be reserved, and lanes that generate must have a row
  // of hidden(). Where the backend works by itself, `meanwhile` is called once, when all work was launched
  // and before its end is waited for; else it is not called, as nobody would win.
  RoundTimes run(const std::vector<Lane*>& lanes, const std::function<void()>& meanwhile = {});

  // What the last round was, as far as its time goes.
  RoundShape last_shape() const;

  HiddenRows& hidden() { return hidden_; }
  ControlBatch& control() { return control_; }
  MaskBatch& masks() { return masks_; }
  DraftMasks& draft_masks() { return draft_masks_; }

  // Backend memory that a round over this model takes beside those of model, drafter and cache.
  static int64_t workspace_bytes(const Model& model);

 private:
  static constexpr int64_t kRun = kMaxBeamLength + 1;  // the most tokens that a lane emits in a round

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
    uint8_t* sample_scratch;                         // [threads, sample_scratch(vocab)]
  };
  // Lanes that decode with one shape, one after another in order_; those that decode plainly are one of width
  // 0.
  struct Group {
    int64_t lanes;  // padding included, which comes last
    int64_t width, length;
    int64_t nodes;           // rows of a lane in the pass at most
    int64_t first = 0;       // in order_
    int64_t first_node = 0;  // in the arrays of trees
  };

  static Results carve_results(Arena& arena, int64_t lanes);
  static size_t results_capacity(const Model& model);
  static Arrays carve(Arena& arena, const Model& model);
  static RoundBatch::Limits batch_limits(const Model& model);

  int64_t draft_length(const Lane& lane) const;
  int64_t budget(const Lane& lane) const;
  void sort(const std::vector<Lane*>& lanes);
  void pad();
  void place_groups();
  void place_results();
  void fill_lanes();
  void fill_rows(const int32_t* nodes);
  void fill_control();
  void fill_draft_masks();
  void add_prompt(const Lane& lane);
  RoundTimes run_in_steps();
  RoundTimes run_at_once(const std::function<void()>& meanwhile);
  void launch_masked(const std::function<void()>& meanwhile);
  void run_meanwhile(const std::function<void()>& meanwhile);
  // What a launch does: all of a round, or one of the parts between which the host looks at a round with
  // masks.
  enum class Part { kAll, kDrafts, kForward, kChoice };
  void launch(Part part);
  bool has_masks() const;
  void ask_masks();
  void draft();
  void place_trees();
  void forward();
  void choose();
  void accept();
  void work(Part part);
  void fetch_results();
  int64_t positions_bound() const;
  RoundGraphs::Shape shape(Part part) const;
  void settle_prompt(Lane& lane, int64_t index);
  void settle_tree(Lane& lane, int64_t index);
  static void fail(Lane& lane);
  void emit(Lane& lane, int64_t index);
  void settle_grammars();

  Model& model_;
  KvCache& cache_;
  Drafter* drafter_;
  Stream& stream_;
  RoundBatch batch_;
  HiddenRows hidden_;
  ControlBatch control_;
  MaskBatch masks_;
  DraftMasks draft_masks_;
  DeviceBuffer workspace_;
  Arrays device_{};
  HostBuffer host_results_;
  size_t results_bytes_ = 0;
  Results results_{}, device_results_{};  // of this round, on the host and on the backend
  std::vector<Lane*> order_;              // as their lanes are in the batch; null: padding
  std::vector<Group> groups_;             // of those that decode, from the first one on
  int64_t drafting_ = 0, choosing_ = 0;   // how many of order_ draft, choose tokens
  int64_t inert_rows_ = 0;                // that padding brings into the pass
  bool all_decode_ = false;
  Logprobs logprobs_;
  RoundGraphs graphs_;
};

}  // namespace redrafter
