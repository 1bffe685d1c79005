// What rounds cost on this machine: measured once for a loaded model, corrected by every round that runs. It
// is timing, so it decides how fast things go and never what comes out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "spec/tree.h"

namespace redrafter {

// Time by size, from a few measured points: linear between them, continued behind the last, and never less
// for more.
class CostCurve {
 public:
  struct Point {
    int64_t size;
    double ms;
  };
  // At least one point; sizes ascend from 1 on, times are above 0.
  explicit CostCurve(std::vector<Point> points);
  double at(int64_t size) const;

  const std::vector<Point>& points() const { return points_; }
  // The point at or before `size`, and how much of the way to the next one it is: up to 1.
  struct Place {
    size_t point;
    double share;
  };
  Place place(int64_t size) const;
  // From now on points take exp(log_factors[i]) times as long as measured.
  void correct(const double* log_factors);

 private:
  struct Run {
    double sum;
    size_t count;
    double mean() const { return sum / static_cast<double>(count); }
  };
  std::vector<Point> points_;   // as measured
  std::vector<double> smooth_;  // their times corrected and made monotone
  std::vector<Run> runs_;       // of neighbours; kept, as every round corrects
};

// A round as far as its time goes. Lanes of one shape draft together.
struct RoundShape {
  struct Group {
    int64_t lanes, width, length;
  };
  std::vector<Group> drafts;
  int64_t rows = 0;  // of the forward pass
};

class RoundCosts {
 public:
  // forward: a pass by its rows, all of which get logits; draft_step: one step of the drafter by the beams
  // that it extends, of all lanes together.
  RoundCosts(CostCurve forward, CostCurve draft_step);

  double forward_ms(int64_t rows) const { return scale_ * forward_.at(rows); }
  double draft_ms(const RoundShape::Group& group) const;
  double overhead_ms() const { return overhead_ms_; }

  // What a round took, in which nothing else ran: draft_ms is below 0 where it is a part of verify_ms.
  void observe(const RoundShape& round, double draft_ms, double verify_ms, double host_ms);

 private:
  double steps_ms(const RoundShape::Group& group) const;
  void depend_on(const CostCurve& curve, size_t first, int64_t size, double share);
  void learn(double log_ratio);

  CostCurve forward_, draft_step_;
  double scale_ = 1.0;  // exp(log_[0])
  double overhead_ms_ = 0.0;

  // Logarithms of what everything has in common (a machine that is busy, longer texts) and of each point of
  // both curves, to what was measured at first. They are normal variables with covariance_, which learn by a
  // Kalman filter: what a round took longer goes to them by how uncertain each is, and a round of another
  // size tells which of them it was. Points of a curve are alike by how near they are.
  std::vector<double> log_;
  std::vector<double> covariance_, prior_;  // [log_, log_]
  std::vector<double> by_, gain_;           // of one observation: how its logarithm depends on each
};

}  // namespace redrafter
