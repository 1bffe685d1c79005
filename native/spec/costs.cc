#include "spec/costs.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace redrafter {
namespace {

// Shares of a new observation. The common factor follows quickly and takes up what all sizes have in common,
// so that curves learn slowly what distinguishes them.
constexpr double kScaleRate = 0.25, kCurveRate = 0.3, kOverheadRate = 0.1;
constexpr double kAtFirst = 5.0, kMostKnown = 30.0, kForget = 0.995;
// One round that was interrupted must not count for many.
constexpr double kMostLog = 0.7;

double bounded_log(double ratio) { return std::clamp(std::log(ratio), -kMostLog, kMostLog); }

}  // namespace

CostCurve::CostCurve(std::vector<Point> points) : points_(std::move(points)) {
  REDRAFTER_CHECK(!points_.empty() && points_[0].size == 1);
  known_.assign(points_.size(), kAtFirst);
  smooth();
}

// Neighbours that fall become their mean, until none does: the nearest monotone curve.
void CostCurve::smooth() {
  runs_.clear();
  for (const Point& point : points_) {
    Run run{point.ms, 1};
    while (!runs_.empty() && runs_.back().mean() > run.mean()) {
      run = {run.sum + runs_.back().sum, run.count + runs_.back().count};
      runs_.pop_back();
    }
    runs_.push_back(run);
  }
  smooth_.clear();
  for (const Run& run : runs_) smooth_.insert(smooth_.end(), run.count, run.mean());
}

double CostCurve::at(int64_t size) const {
  if (points_.size() == 1) return smooth_[0];
  const auto above = std::upper_bound(points_.begin() + 1, points_.end() - 1, size,
                                      [](int64_t value, const Point& point) { return value < point.size; });
  const auto right = static_cast<size_t>(above - points_.begin()), left = right - 1;
  const double slope =
      (smooth_[right] - smooth_[left]) / static_cast<double>(above->size - (above - 1)->size);
  return std::max(smooth_[left] + slope * static_cast<double>(size - (above - 1)->size), smooth_[0]);
}

void CostCurve::move(size_t point, double log_ratio, double share) {
  known_[point] = std::min(known_[point] + share, kMostKnown);
  points_[point].ms *= std::exp(kCurveRate * log_ratio * share / (known_[point] + 1.0));
}

void CostCurve::correct(int64_t size, double ratio) {
  const double log_ratio = bounded_log(ratio);
  for (double& known : known_) known *= kForget;
  const auto above = std::lower_bound(points_.begin(), points_.end(), size,
                                      [](const Point& point, int64_t value) { return point.size < value; });
  const auto right = static_cast<size_t>(above - points_.begin());
  if (above == points_.end()) {
    move(right - 1, log_ratio, 1.0);
  } else if (above->size == size || right == 0) {
    move(right, log_ratio, 1.0);
  } else {
    const Point& left = points_[right - 1];
    const double share = static_cast<double>(size - left.size) / static_cast<double>(above->size - left.size);
    move(right - 1, log_ratio, 1.0 - share);
    move(right, log_ratio, share);
  }
  smooth();
}

void CostCurve::scale(double factor) {
  for (Point& point : points_) point.ms *= factor;
  smooth();
}

RoundCosts::RoundCosts(CostCurve forward, CostCurve draft_step)
    : forward_(std::move(forward)), draft_step_(std::move(draft_step)) {}

// The drafter takes at most kMaxBeamWidth beams at a time; the first step of each has one beam a lane.
double RoundCosts::steps_ms(const RoundShape::Group& group) const {
  const int64_t at_once = std::max<int64_t>(1, kMaxBeamWidth / group.width);
  double ms = 0.0;
  for (int64_t first = 0; first < group.lanes; first += at_once) {
    const int64_t lanes = std::min(at_once, group.lanes - first);
    ms += draft_step_.at(lanes) + static_cast<double>(group.length - 1) * draft_step_.at(lanes * group.width);
  }
  return ms;
}

double RoundCosts::draft_ms(const RoundShape::Group& group) const { return scale_ * steps_ms(group); }

void RoundCosts::observe(const RoundShape& round, double draft_ms, double verify_ms, double host_ms) {
  double draft = 0.0;
  for (const RoundShape::Group& group : round.drafts) draft += RoundCosts::draft_ms(group);
  const double forward = forward_ms(round.rows), took = std::max(draft_ms, 0.0) + verify_ms;
  if (!(took > 0.0)) return;
  const bool apart = draft_ms >= 0.0 && draft > 0.0;  // else only the whole is known
  const double both = took / (draft + forward);
  forward_.correct(round.rows, apart ? verify_ms / forward : both);
  const double ratio = apart ? std::max(draft_ms, 1e-6) / draft : both;
  for (const RoundShape::Group& group : round.drafts) {
    draft_step_.correct(std::min(group.lanes * group.width, kMaxBeamWidth), ratio);
  }
  scale_ *= std::exp(kScaleRate * bounded_log(both));
  overhead_ms_ += kOverheadRate * (std::min(std::max(host_ms, 0.0), forward) - overhead_ms_);
}

}  // namespace redrafter
