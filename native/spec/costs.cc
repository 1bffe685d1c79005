#include "spec/costs.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace redrafter {
namespace {

// Standard deviations of logarithms. A round is off by kNoise without any reason; what all have in common
// moves by kDrift a round; a point was measured at load as well as kPoint, neighbours kAlike doublings away
// less than half together.
constexpr double kNoise = 0.1, kCommon = 0.4, kDrift = 0.02, kPoint = 0.15, kAlike = 1.5;
// What was learnt about points becomes uncertain again within some 500 rounds.
constexpr double kKeep = 0.9995;
// One round that was interrupted must not count for many.
constexpr double kMostLog = 0.3;
constexpr double kOverheadRate = 0.1;

double square(double x) { return x * x; }

}  // namespace

CostCurve::CostCurve(std::vector<Point> points) : points_(std::move(points)) {
  REDRAFTER_CHECK(!points_.empty() && points_[0].size == 1);
  correct(std::vector<double>(points_.size(), 0.0).data());
}

// Neighbours that fall become their mean, until none does: the nearest monotone curve.
void CostCurve::correct(const double* log_factors) {
  runs_.clear();
  for (size_t i = 0; i < points_.size(); ++i) {
    Run run{points_[i].ms * std::exp(log_factors[i]), 1};
    while (!runs_.empty() && runs_.back().mean() > run.mean()) {
      run = {run.sum + runs_.back().sum, run.count + runs_.back().count};
      runs_.pop_back();
    }
    runs_.push_back(run);
  }
  smooth_.clear();
  for (const Run& run : runs_) smooth_.insert(smooth_.end(), run.count, run.mean());
}

CostCurve::Place CostCurve::place(int64_t size) const {
  const auto above = std::upper_bound(points_.begin() + 1, points_.end(), size,
                                      [](int64_t value, const Point& point) { return value < point.size; });
  const auto point = static_cast<size_t>(above - points_.begin()) - 1;
  if (above == points_.end()) return {point, 0.0};
  const int64_t from = points_[point].size;
  return {point,
          static_cast<double>(std::max<int64_t>(size - from, 0)) / static_cast<double>(above->size - from)};
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

RoundCosts::RoundCosts(CostCurve forward, CostCurve draft_step)
    : forward_(std::move(forward)), draft_step_(std::move(draft_step)) {
  const size_t forward_points = forward_.points().size();
  const size_t count = 1 + forward_points + draft_step_.points().size();
  log_.assign(count, 0.0);
  by_.assign(count, 0.0);
  gain_.assign(count, 0.0);
  prior_.assign(count * count, 0.0);
  prior_[0] = square(kCommon);
  const auto relate = [&](const CostCurve& curve, size_t first) {
    const std::vector<CostCurve::Point>& points = curve.points();
    for (size_t i = 0; i < points.size(); ++i) {
      for (size_t j = 0; j < points.size(); ++j) {
        const double doublings =
            std::log2(static_cast<double>(points[i].size) / static_cast<double>(points[j].size));
        prior_[(first + i) * count + first + j] = square(kPoint) * std::exp(-std::abs(doublings) / kAlike);
      }
    }
  };
  relate(forward_, 1);
  relate(draft_step_, 1 + forward_points);
  covariance_ = prior_;
}

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

void RoundCosts::depend_on(const CostCurve& curve, size_t first, int64_t size, double share) {
  const CostCurve::Place place = curve.place(size);
  by_[first + place.point] += share * (1.0 - place.share);
  if (place.share > 0.0) by_[first + place.point + 1] += share * place.share;
}

// A Kalman filter's update by one observation that depends on log_ as by_ says, and its prediction for the
// next. by_ is left empty.
void RoundCosts::learn(double log_ratio) {
  const size_t count = log_.size();
  std::fill(gain_.begin(), gain_.end(), 0.0);
  double variance = square(kNoise);
  for (size_t i = 0; i < count; ++i) {
    if (by_[i] == 0.0) continue;
    const double* row = &covariance_[i * count];
    for (size_t j = 0; j < count; ++j) gain_[j] += by_[i] * row[j];
  }
  for (size_t i = 0; i < count; ++i) variance += by_[i] * gain_[i];
  const double step = std::clamp(log_ratio, -kMostLog, kMostLog) / variance;
  for (size_t i = 0; i < count; ++i) {
    log_[i] += step * gain_[i];
    double* row = &covariance_[i * count];
    const double* prior = &prior_[i * count];
    const double share = gain_[i] / variance;
    for (size_t j = 0; j < count; ++j)
      row[j] = kKeep * (row[j] - share * gain_[j]) + (1.0 - kKeep) * prior[j];
  }
  covariance_[0] += square(kDrift);
  std::fill(by_.begin(), by_.end(), 0.0);
}

void RoundCosts::observe(const RoundShape& round, double draft_ms, double verify_ms, double host_ms) {
  const size_t first_draft = 1 + forward_.points().size();
  double draft = 0.0;
  for (const RoundShape::Group& group : round.drafts) draft += RoundCosts::draft_ms(group);
  const double forward = forward_ms(round.rows), took = std::max(draft_ms, 0.0) + verify_ms;
  if (!(took > 0.0)) return;
  const bool apart = draft_ms >= 0.0;  // else only the whole is known
  const auto depend_on_drafts = [&](double share) {
    for (const RoundShape::Group& group : round.drafts)
      depend_on(draft_step_, first_draft, std::min(group.lanes * group.width, kMaxBeamWidth),
                share * RoundCosts::draft_ms(group) / draft);
  };
  const double whole = apart ? forward : draft + forward;
  by_[0] = 1.0;
  depend_on(forward_, 1, round.rows, forward / whole);
  if (!apart && draft > 0.0) depend_on_drafts(draft / whole);
  learn(std::log((apart ? verify_ms : took) / whole));
  if (apart && draft > 0.0) {
    by_[0] = 1.0;
    depend_on_drafts(1.0);
    learn(std::log(std::max(draft_ms, 1e-6) / draft));
  }
  scale_ = std::exp(log_[0]);
  forward_.correct(&log_[1]);
  draft_step_.correct(&log_[first_draft]);
  overhead_ms_ += kOverheadRate * (std::min(std::max(host_ms, 0.0), forward) - overhead_ms_);
}

}  // namespace redrafter
