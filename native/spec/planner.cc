#include "spec/planner.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/check.h"

namespace redrafter {
namespace {

struct Beams {
  int64_t width, length;
};
// Few, as every kind of round on CUDA is a graph of its own, and neighbours would differ by less than their
// costs are known.
constexpr Beams kLadder[] = {{1, 1}, {1, 2}, {1, 3}, {1, 4}, {1, 5}, {1, 6}, {1, 8}, {2, 1},
                             {2, 2}, {2, 3}, {2, 4}, {2, 5}, {2, 6}, {4, 1}, {4, 2}, {4, 3},
                             {4, 4}, {4, 6}, {8, 3}, {8, 4}, {8, 6}, {16, 4}};

constexpr double kExploring = 0.006;  // share of the time
constexpr double kDearest = 8.0;      // rounds that trying something may cost
constexpr double kRowsRate = 0.1;
constexpr int64_t kRecent = 24;  // rounds in which a shape is not tried again

// A shape must be this much better than plain decoding to be worth what is not known of its costs. And in a
// batch, what it costs in the end: requests that got ahead leave first, and the rest have passes of fewer
// rows.
constexpr double kMargin = 1.015;
constexpr double kUneven = 0.025;

MakePlanner make_planners = nullptr;

}  // namespace

void make_planners_with(MakePlanner make) { make_planners = make; }

MakePlanner planners_made_with() { return make_planners; }

Planner::Planner(RoundCosts costs) : costs_(std::move(costs)) {
  for (const Beams& beams : kLadder) {
    const int64_t nodes = beams.width * beams.length;
    const auto add = [&](int64_t below_root) {
      if (below_root >= kMostNodes) return;
      const double width = static_cast<double>(below_root) / static_cast<double>(beams.length);
      ladder_.push_back(
          {{beams.width, beams.length, 1 + below_root}, width, 1.0 + static_cast<double>(below_root)});
    };
    add(nodes);
    if (beams.width > 1 && nodes / 2 > beams.length) add(nodes / 2);
  }
  tried_.assign(1 + 2 * ladder_.size(), 0);
}

void Planner::learn_rows(const DraftShape& shape, int64_t rows) {
  for (Candidate& candidate : ladder_) {
    if (candidate.shape == shape) candidate.rows += kRowsRate * (static_cast<double>(rows) - candidate.rows);
  }
}

double Planner::time(size_t lanes, const PlanRound& round, const Choice& c) const {
  double ms = costs_.overhead_ms();
  double rows = static_cast<double>(round.other_rows) + static_cast<double>(lanes - c.drafting);
  const auto add = [&](size_t shape, size_t count) {
    if (count == 0) return;
    const DraftShape& s = ladder_[shape].shape;
    ms += costs_.draft_ms({static_cast<int64_t>(count), s.width, s.length});
    rows += static_cast<double>(count) * ladder_[shape].rows;
  };
  add(c.other, c.second);
  add(c.shape, c.drafting - c.second);
  return ms + costs_.forward_ms(std::llround(rows));
}

bool Planner::fits(size_t lanes, const PlanRound& round, const Choice& c) const {
  const size_t rows = lanes - c.drafting + c.second * static_cast<size_t>(ladder_[c.other].shape.budget) +
                      (c.drafting - c.second) * static_cast<size_t>(ladder_[c.shape].shape.budget);
  return round.other_rows + static_cast<int64_t>(rows) <= round.most_rows;
}

void Planner::expect(const std::vector<PlanLane>& lanes) {
  tokens_.resize(lanes.size() * ladder_.size());
  double* tokens = tokens_.data();
  const SharedAcceptance* shared = nullptr;
  for (const PlanLane& lane : lanes) {
    if (&lane.acceptance->shared() != shared) {
      shared = &lane.acceptance->shared();
      left_.clear();
      for (const Candidate& candidate : ladder_) left_.push_back(shared->misses_left(candidate.width));
    }
    const Depths chain = lane.acceptance->chain();
    for (size_t shape = 0; shape < ladder_.size(); ++shape) {
      *tokens++ =
          expected_tokens(chain, left_[shape], std::min(ladder_[shape].shape.length, lane.most_length));
    }
  }
}

// Those that gain most first; of lanes that gain about as much, those that have waited longest, so that all
// get on equally fast.
void Planner::rank(size_t shape, const std::vector<PlanLane>& lanes) {
  constexpr double kAsMuch = 1.0 / 16.0;  // tokens
  order_.resize(lanes.size());
  std::iota(order_.begin(), order_.end(), size_t{0});
  std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) {
    const auto key = [&](size_t i) {
      return std::pair(std::llround(tokens_[i * ladder_.size() + shape] / kAsMuch),
                       lanes[i].acceptance->rounds_plain());
    };
    return key(a) > key(b);
  });
}

// The best single shape, and for how many of the lanes: those that gain most by it.
Planner::Choice Planner::choose(const std::vector<PlanLane>& all, const PlanRound& round) {
  const size_t lanes = all.size();
  Choice best;
  best.rate = static_cast<double>(lanes) / time(lanes, round, best);
  double bar = (kMargin + kUneven * (1.0 - 1.0 / static_cast<double>(lanes))) * best.rate;
  plain_ = best;
  found_.assign(2 * ladder_.size(), {});
  for (size_t shape = 0; shape < ladder_.size(); ++shape) {
    rank(shape, all);
    double tokens = static_cast<double>(lanes);
    for (size_t count = 1; count <= lanes; ++count) {
      const double own = tokens_[order_[count - 1] * ladder_.size() + shape];
      if (own <= 1.0) break;  // it may draft nothing any more
      tokens += own - 1.0;
      Choice choice{shape, 0, count, 0, 0.0};
      if (!fits(lanes, round, choice)) break;
      choice.rate = tokens / time(lanes, round, choice);
      if (choice.rate > found_[shape].rate) found_[shape] = choice;
      found_[ladder_.size() + shape] = choice;
    }
    if (found_[shape].rate <= bar) continue;
    best = found_[shape];
    bar = best.rate;
    best_order_ = order_;
  }
  return best;
}

// A second shape for the lanes that gain most, where that is better still.
void Planner::refine(Choice& best, size_t lanes, const PlanRound& round) {
  if (best.drafting < 2) return;
  const Choice first = best;
  for (size_t other = 0; other < ladder_.size(); ++other) {
    double tokens = static_cast<double>(lanes);
    for (size_t i = 0; i < first.drafting; ++i) {
      tokens += tokens_[best_order_[i] * ladder_.size() + first.shape] - 1.0;
    }
    Choice choice = first;
    choice.other = other;
    for (size_t second = 1; second < first.drafting; ++second) {
      const double* own = &tokens_[best_order_[second - 1] * ladder_.size()];
      tokens += own[other] - own[first.shape];
      choice.second = second;
      if (!fits(lanes, round, choice)) break;
      choice.rate = tokens / time(lanes, round, choice);
      if (choice.rate > best.rate) best = choice;
    }
  }
}

// Now and then what does not seem to be best, as what is known of it may be wrong or old: of all shapes,
// plain decoding among them, the one that was tried longest ago for what it is expected to lose, which is at
// most another round; but more for plain decoding and the shortest drafts, without which nothing that was
// measured wrong would ever heal. A shape for all that can draft counts as another: what passes of many rows
// cost shows in no round of few. The losses come out of savings; what only some of the requests may gain is
// not set against them, as it ends no other sooner.
void Planner::explore(const std::vector<PlanLane>& lanes, const PlanRound& round, Choice& best) {
  const double usual = time(lanes.size(), round, best);
  savings_ms_ = std::min(savings_ms_ + kExploring * usual, kDearest * usual);
  ++rounds_;
  Choice chosen = best;
  double most = 0.0, price = 0.0;
  for (size_t i = 0; i < tried_.size(); ++i) {
    const Choice& choice = i == 0 ? plain_ : found_[i - 1];
    const int64_t age = rounds_ - tried_[i];
    if (!(choice.rate > 0.0) || age < kRecent) continue;
    if (i > ladder_.size() && choice.drafting == found_[i - 1 - ladder_.size()].drafting) continue;
    const double ms = time(lanes.size(), round, choice);
    double loss = std::max(0.0, ms * (1.0 - choice.rate / best.rate));
    if (choice.drafting < lanes.size()) loss = std::max(loss, ms - usual);
    const double worth = static_cast<double>(age * age) / (loss + 0.005 * usual);
    if (loss > (i <= 1 || i == 1 + ladder_.size() ? kDearest : 1.0) * usual || worth <= most) continue;
    most = worth;
    price = loss;
    chosen = choice;
  }
  if (most > 0.0 && price <= savings_ms_) {  // else its turn comes
    savings_ms_ -= price;
    // All lanes in turn: were it those that look best, each would be tried until it looks bad.
    best = chosen;
    best_order_.resize(lanes.size());
    std::iota(best_order_.begin(), best_order_.end(), size_t{0});
    std::stable_sort(best_order_.begin(), best_order_.end(), [&](size_t a, size_t b) {
      const auto key = [&](size_t i) {
        return std::pair(lanes[i].most_length > 0, lanes[i].acceptance->rounds_plain());
      };
      return key(a) > key(b);
    });
  }
  if (best.drafting == 0) tried_[0] = rounds_;
  const auto mark = [&](size_t shape, size_t count) {
    tried_[1 + shape] = rounds_;
    if (count >= found_[ladder_.size() + shape].drafting) tried_[1 + ladder_.size() + shape] = rounds_;
  };
  if (best.drafting > best.second) mark(best.shape, best.drafting - best.second);
  if (best.second > 0) mark(best.other, best.second);
}

const std::vector<DraftShape>& Planner::plan(const std::vector<PlanLane>& lanes, const PlanRound& round) {
  shapes_.assign(lanes.size(), {});
  if (lanes.empty()) return shapes_;
  expect(lanes);
  Choice best = choose(lanes, round);
  refine(best, lanes.size(), round);
  explore(lanes, round, best);
  for (size_t i = 0; i < best.drafting; ++i) {
    shapes_[best_order_[i]] = ladder_[i < best.second ? best.other : best.shape].shape;
  }
  return shapes_;
}

}  // namespace redrafter
