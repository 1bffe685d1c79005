#include "spec/acceptance.h"

#include <algorithm>
#include <cmath>

namespace redrafter {
namespace {

// A request is remembered for some 50 rounds, all requests together for some 300.
constexpr double kKeep = 0.98, kKeepShared = 0.997;
// While a request decodes plainly, what is known of it becomes less certain, but not unknown.
constexpr double kKeepPlain = 0.98, kLeastPlain = 10.0;
// What a prior weighs, in observations.
constexpr double kFirstPrior = 3.0, kWidthPrior = 8.0;
// What all requests have in common weighs for one of them: little where they differ, much where they are
// alike. Which of both it is shows in how well each foretold what came.
constexpr std::array<double, 2> kCommonWeights = {3.0, 60.0};
constexpr double kKeepForetold = 0.99;
// How much of a request's difference at one depth is expected at the next.
constexpr double kShift = 0.5;
// Before anything is known: that drafts pay, so that they are tried.
constexpr double kFirst = 0.6;
// Each doubling of the beams takes away some of the misses: the worth of what was measured with few beams,
// for more.
constexpr double kLeftByDoubling = 0.87;

double bounded(double p) { return std::clamp(p, 0.001, 0.999); }

}  // namespace

void DepthCounts::fade(double keep, double least) {
  for (size_t d = 0; d < tried.size(); ++d) {
    if (tried[d] <= least) continue;
    const double factor = std::max(keep, least / tried[d]);
    tried[d] *= factor;
    taken[d] *= factor;
  }
}

Depths SharedAcceptance::start() {
  Depths chain;
  chain.fill(kFirst);
  return chain;
}

std::array<double, SharedAcceptance::kWidths> SharedAcceptance::start_left() {
  std::array<double, kWidths> left;
  for (size_t i = 0; i < left.size(); ++i) left[i] = std::pow(kLeftByDoubling, static_cast<double>(i));
  return left;
}

// What depth d is like is unknown until something got there: as the depth before it.
void SharedAcceptance::estimate() {
  double prior = kFirst;
  for (size_t d = 0; d < chain_.size(); ++d) {
    chain_[d] = prior = bounded((counts_.taken[d] + kFirstPrior * prior) / (counts_.tried[d] + kFirstPrior));
  }
  for (size_t i = 1; i < left_.size(); ++i) {
    const double expected = left_[i - 1] * kLeftByDoubling;
    left_[i] = (misses_[i] + kWidthPrior * expected) / (chain_misses_[i] + kWidthPrior);
    left_[i] = std::clamp(left_[i], 0.02, left_[i - 1]);
  }
}

double SharedAcceptance::misses_left(double width) const {
  const double at = std::clamp(std::log2(std::max(width, 1.0)), 0.0, static_cast<double>(kWidths - 1));
  const auto below = std::min(static_cast<size_t>(at), static_cast<size_t>(kWidths - 2));
  const double share = at - static_cast<double>(below);
  return left_[below] + share * (left_[below + 1] - left_[below]);
}

double SharedAcceptance::alike() const { return 1.0 / (1.0 + std::exp(-foretold_)); }

void SharedAcceptance::learn(const DraftOutcome& o, const Depths& expected) {
  counts_.fade(kKeepShared);
  for (int64_t d = 0; d < std::min(o.on_first_beam + 1, o.length); ++d) counts_.add(d, d < o.on_first_beam);
  if (o.width > 1) {
    const auto at = static_cast<size_t>(
        std::clamp<int64_t>(std::llround(std::log2(static_cast<double>(o.width))), 1, kWidths - 1));
    misses_[at] *= kKeepShared;
    chain_misses_[at] *= kKeepShared;
    for (int64_t d = 0; d < std::min(o.accepted + 1, o.length); ++d) {
      misses_[at] += d == o.accepted ? 1.0 : 0.0;
      chain_misses_[at] += 1.0 - expected[static_cast<size_t>(d)];
    }
  }
  estimate();
}

// Around what all requests have in common, shifted by a part of how this one differed at the depth before.
Depths Acceptance::chain(double common_weight) const {
  Depths own;
  double shift = 0.0;
  for (size_t d = 0; d < own.size(); ++d) {
    const double prior = bounded(shared_->chain()[d] + shift);
    own[d] = bounded((counts_.taken[d] + common_weight * prior) / (counts_.tried[d] + common_weight));
    shift = kShift * (own[d] - shared_->chain()[d]);
  }
  return own;
}

Depths Acceptance::chain() const {
  Depths own = chain(kCommonWeights[0]);
  const Depths alike = chain(kCommonWeights[1]);
  const double share = shared_->alike();
  for (size_t d = 0; d < own.size(); ++d) own[d] += share * (alike[d] - own[d]);
  return own;
}

double expected_tokens(const Depths& chain, double left, int64_t length) {
  double tokens = 1.0, reached = 1.0;
  for (int64_t d = 0; d < length; ++d) {
    reached *= 1.0 - (1.0 - chain[static_cast<size_t>(d)]) * left;
    tokens += reached;
  }
  return tokens;
}

void Acceptance::learn(const DraftOutcome& o) {
  const Depths expected = chain(), own = chain(kCommonWeights[0]), alike = chain(kCommonWeights[1]);
  double foretold = 0.0;
  for (int64_t i = 0; i < std::min(o.on_first_beam + 1, o.length); ++i) {
    const auto d = static_cast<size_t>(i);
    foretold +=
        i < o.on_first_beam ? std::log(alike[d] / own[d]) : std::log((1.0 - alike[d]) / (1.0 - own[d]));
  }
  shared_->foretold_ = kKeepForetold * shared_->foretold_ + foretold;
  counts_.fade(kKeep);
  for (int64_t d = 0; d < std::min(o.on_first_beam + 1, o.length); ++d) counts_.add(d, d < o.on_first_beam);
  shared_->learn(o, expected);
  rounds_plain_ = 0;
}

void Acceptance::decoded_plainly() {
  ++rounds_plain_;
  counts_.fade(kKeepPlain, kLeastPlain);
}

}  // namespace redrafter
