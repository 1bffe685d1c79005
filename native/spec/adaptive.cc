#include "spec/adaptive.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace redrafter {

AdaptiveDrafting::AdaptiveDrafting(std::unique_ptr<Planner> planner, bool times_apart)
    : planner_(std::move(planner)), times_apart_(times_apart) {}

void AdaptiveDrafting::adopt(Lane& lane) {
  lane.acceptance.emplace(planner_->shared(lane.sample.temperature > 0.0f));
}

void AdaptiveDrafting::plan(const std::vector<Lane*>& lanes, int64_t rows, int64_t most_rows) {
  adopted_.clear();
  planned_.clear();
  only_decodes_ = true;
  for (Lane* lane : lanes) {
    only_decodes_ = only_decodes_ && lane->decoding;
    if (!lane->decoding || !lane->acceptance) continue;
    adopted_.push_back(lane);
    // A round emits at most one token more than its tree is deep.
    planned_.push_back(
        {&*lane->acceptance, std::clamp<int64_t>(lane->max_tokens - lane->generated - 1, 0, kMaxBeamLength)});
  }
  const std::vector<DraftShape>& shapes =
      planner_->plan(planned_, {rows - static_cast<int64_t>(adopted_.size()), most_rows});
  for (size_t i = 0; i < adopted_.size(); ++i) {
    adopted_[i]->beam_width = shapes[i].width;
    adopted_[i]->beam_length = std::min(shapes[i].length, planned_[i].most_length);
    adopted_[i]->beam_budget = shapes[i].budget;
  }
}

void AdaptiveDrafting::learn(const Round& round, const RoundTimes& times, double host_ms) {
  for (Lane* lane : adopted_) {
    const int64_t length = lane->beam_length, below_root = lane->beam_budget - 1;
    if (lane->beam_width == 0 || length == 0) {
      lane->acceptance->decoded_plainly();
    } else {
      const int64_t width = std::max<int64_t>(1, (2 * below_root + length) / (2 * length));
      lane->acceptance->learn({std::min(width, lane->beam_width), length, lane->accepted,
                               std::min(lane->on_first_beam, lane->accepted)});
      planner_->learn_rows({lane->beam_width, length, lane->beam_budget}, lane->rows);
    }
    lane->beam_width = lane->beam_length = lane->beam_budget = 0;
  }
  if (only_decodes_) {
    planner_->costs().observe(round.last_shape(), times_apart_ ? times.draft_ms : -1.0, times.verify_ms,
                              host_ms);
  }
}

}  // namespace redrafter
