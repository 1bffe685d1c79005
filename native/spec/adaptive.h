// Drafting whose shape is chosen anew for each round: between the planner, which knows no requests, and the
// lanes of a round.
#pragma once

#include <memory>
#include <vector>

#include "spec/planner.h"
#include "spec/round.h"

namespace redrafter {

class AdaptiveDrafting {
 public:
  // times_apart: whether rounds tell how long drafting took.
  AdaptiveDrafting(std::unique_ptr<Planner> planner, bool times_apart);

  // From now on the lane's shape is chosen here. Until it is, the lane decodes plainly.
  void adopt(Lane& lane);

  // Before a round: shapes for the lanes that are adopted and decode. `rows` is what the round has in its
  // pass while they decode plainly, most_rows what it may have.
  void plan(const std::vector<Lane*>& lanes, int64_t rows, int64_t most_rows);
  // After it: how it went. Adopted lanes decode plainly again.
  void learn(const Round& round, const RoundTimes& times, double host_ms);

 private:
  std::unique_ptr<Planner> planner_;
  bool times_apart_;
  bool only_decodes_ = false;   // the round that was planned
  std::vector<Lane*> adopted_;  // that decode in it
  std::vector<PlanLane> planned_;
};

}  // namespace redrafter
