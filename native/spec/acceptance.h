// How far drafts get: what is known of it for a request, and what requests have in common.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "spec/tree.h"

namespace redrafter {

// By depth, from that of the first drafted token on.
using Depths = std::array<double, kMaxBeamLength>;

// A drafted round of a request.
struct DraftOutcome {
  int64_t width, length;  // as drafted; width: nodes of the tree by its length, rounded
  int64_t accepted;       // drafted tokens accepted
  int64_t on_first_beam;  // of them, those that the most probable beam had
};

// Counts that forget: of drafted tokens by depth, whose parents were accepted, and of those accepted among
// them.
struct DepthCounts {
  Depths tried{}, taken{};
  void add(int64_t depth, bool accepted) {
    tried[static_cast<size_t>(depth)] += 1.0;
    taken[static_cast<size_t>(depth)] += accepted ? 1.0 : 0.0;
  }
  // Forgets a share of everything, but keeps a weight of `least` where there was more.
  void fade(double keep, double least = 0.0);
};

// What is expected of drafts of one beam and what more beams are worth, over all requests of a kind.
class SharedAcceptance {
 public:
  // Probability that a token of a chain is accepted when those before it were.
  const Depths& chain() const { return chain_; }
  // Share of the misses of a chain that are left with `width` beams, at least 1 of them.
  double misses_left(double width) const;
  // How sure it is that requests are alike, from 0 to 1.
  double alike() const;

 private:
  friend class Acceptance;
  static constexpr int64_t kWidths = 7;  // 1, 2, 4 .. 64
  void learn(const DraftOutcome& outcome, const Depths& expected);
  void estimate();

  DepthCounts counts_;
  double foretold_ = 0.0;  // log-likelihood of outcomes if requests are alike, less if they are not
  std::array<double, kWidths> misses_{}, chain_misses_{};
  Depths chain_ = start();
  std::array<double, kWidths> left_ = start_left();
  static Depths start();
  static std::array<double, kWidths> start_left();
};

// Of one request.
class Acceptance {
 public:
  Acceptance() = default;
  explicit Acceptance(SharedAcceptance& shared) : shared_(&shared) {}

  Depths chain() const;
  void learn(const DraftOutcome& outcome);
  void decoded_plainly();
  int64_t rounds_plain() const { return rounds_plain_; }  // since it drafted
  const SharedAcceptance& shared() const { return *shared_; }

 private:
  Depths chain(double common_weight) const;
  SharedAcceptance* shared_ = nullptr;
  DepthCounts counts_;
  int64_t rounds_plain_ = 0;
};

// Expected tokens of a round whose drafts are `length` deep, the target's own token included: `left` of the
// misses of a chain remain.
double expected_tokens(const Depths& chain, double left, int64_t length);

}  // namespace redrafter
