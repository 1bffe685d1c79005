// Chooses what the requests of a round draft, plain decoding included: the most tokens by time, for all of
// them together, from what rounds cost and how far drafts got. A function of what it was told, so that a run
// can be told again; it changes speed alone.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "spec/acceptance.h"
#include "spec/costs.h"

namespace redrafter {

struct DraftShape {
  int64_t width = 0, length = 0;  // 0 x 0: plain decoding
  int64_t budget = 1;             // nodes of the tree at most, the root included
  bool operator==(const DraftShape&) const = default;
};

// A request that decodes, and leaves its shape to the planner.
struct PlanLane {
  const Acceptance* acceptance;
  int64_t most_length;  // deeper drafts would be cut off: 0 .. kMaxBeamLength
};

// What else the round does.
struct PlanRound {
  int64_t other_rows = 0;  // of the pass: prompts, requests whose shape is given
  int64_t most_rows;       // of the pass
};

class Planner {
 public:
  explicit Planner(RoundCosts costs);
  virtual ~Planner() = default;

  // One shape for each lane, of at most two kinds beside plain decoding: lanes of a kind draft together. Now
  // and then another one than what seems best, to see whether it would pay by now; that costs less than 1 %
  // of the time.
  virtual const std::vector<DraftShape>& plan(const std::vector<PlanLane>& lanes, const PlanRound& round);

  // How many rows a lane of a planned shape had in the pass: on some backends trees take what they need, and
  // beams share beginnings.
  void learn_rows(const DraftShape& shape, int64_t rows);

  RoundCosts& costs() { return costs_; }
  // Requests that sample are another kind than those that do not: drafts get less far.
  SharedAcceptance& shared(bool samples) { return shared_[samples ? 1 : 0]; }

  // Nodes that no tree of a planned shape has more of.
  static constexpr int64_t kMostNodes = 65;

 private:
  struct Candidate {
    DraftShape shape;
    double width;  // beams, as far as the budget has room for them
    double rows;   // of a lane in the pass, in the mean
  };
  // The first `second` of the lanes in an order draft `other`, those up to `drafting` `shape`, the rest
  // nothing.
  struct Choice {
    size_t shape = 0, other = 0;
    size_t drafting = 0, second = 0;
    double rate = 0.0;  // tokens by ms
  };

  double time(size_t lanes, const PlanRound& round, const Choice& choice) const;
  bool fits(size_t lanes, const PlanRound& round, const Choice& choice) const;
  void expect(const std::vector<PlanLane>& lanes);
  void rank(size_t shape, const std::vector<PlanLane>& lanes);
  Choice choose(const std::vector<PlanLane>& all, const PlanRound& round);
  void refine(Choice& best, size_t lanes, const PlanRound& round);
  void explore(const std::vector<PlanLane>& lanes, const PlanRound& round, Choice& best);

  RoundCosts costs_;
  SharedAcceptance shared_[2];
  std::vector<Candidate> ladder_;
  double savings_ms_ = 0.0;  // that may be spent on trying what does not seem to pay
  int64_t rounds_ = 0;
  // The last round of each: plain decoding, [ladder] shapes, [ladder] shapes for all lanes.
  std::vector<int64_t> tried_;
  // Of the round that is planned.
  std::vector<double> left_;    // [ladder] of the misses of a chain
  std::vector<double> tokens_;  // [lanes, ladder]
  std::vector<size_t> order_;   // lanes, those that gain most by a shape first
  std::vector<size_t> best_order_;
  Choice plain_;
  // [ladder] the best of each shape, [ladder] each for all lanes; a rate of 0 where it drafts nothing.
  std::vector<Choice> found_;
  std::vector<DraftShape> shapes_;
};

// For tests: engines that are loaded while `make` is set take its planners, and measure nothing. Null to
// measure.
using MakePlanner = std::unique_ptr<Planner> (*)();
void make_planners_with(MakePlanner make);
MakePlanner planners_made_with();

}  // namespace redrafter
