// What a round does for lanes whose text follows a grammar, and for what must not be drafted.
#include <algorithm>
#include <vector>

#include "spec/round.h"

namespace redrafter {

// Whether a lane that chooses has a grammar.
bool Round::has_masks() const {
  return std::any_of(order_.begin(), order_.begin() + choosing_,
                     [](const Lane* lane) { return lane != nullptr && lane->grammar != nullptr; });
}

// The trees are on the backend, and looking at them waits for it.
void Round::ask_masks() {
  masks_.clear();
  const Backend& backend = model_.backend();
  int64_t nodes = 0;
  for (const Group& g : groups_) nodes = g.first_node + g.lanes * g.nodes;
  std::vector<int32_t> token(static_cast<size_t>(nodes)), parent(token);
  if (drafting_ > 0) {
    const auto bytes = static_cast<size_t>(nodes) * sizeof(int32_t);
    backend.download(token.data(), device_.tree_token, bytes, stream_);
    backend.download(parent.data(), device_.tree_parent, bytes, stream_);
    backend.download(results_.nodes, device_results_.nodes, static_cast<size_t>(drafting_) * sizeof(int32_t),
                     stream_);
  }
  auto group = groups_.begin();
  for (int64_t i = 0; i < choosing_; ++i) {
    const Lane* lane = order_[static_cast<size_t>(i)];
    while (group != groups_.end() && i >= group->first + group->lanes) ++group;
    if (lane == nullptr || lane->grammar == nullptr) continue;
    if (i < drafting_) {
      const auto first = token.begin() + group->first_node + (i - group->first) * group->nodes;
      const auto from = parent.begin() + (first - token.begin());
      masks_.add_lane(*lane->grammar, batch_.first_output(i), {first, first + results_.nodes[i]},
                      {from, from + results_.nodes[i]});
    } else {
      masks_.add_root(*lane->grammar, batch_.first_output(i));
    }
  }
  masks_.ask();
}

// What must not be drafted. Sent like control, and before the lanes draft.
void Round::fill_draft_masks() {
  draft_masks_.clear();
  for (int64_t i = 0; i < drafting_; ++i) {
    const Lane* lane = order_[static_cast<size_t>(i)];
    if (lane == nullptr) {
      draft_masks_.add_lane(nullptr, nullptr);
    } else {
      draft_masks_.add_lane(lane->control.get(), lane->grammar.get());
    }
  }
  draft_masks_.upload();
}

// A text that was cut may be complete just there: then the cut has no part in it.
void Round::settle_grammars() {
  if (!masks_.any()) return;
  std::vector<Lane*> cut;
  std::vector<LaneGrammar*> grammars;
  for (Lane* lane : order_) {
    if (lane == nullptr || lane->grammar == nullptr || lane->finish != Finish::kLength) continue;
    cut.push_back(lane);
    grammars.push_back(lane->grammar.get());
  }
  if (cut.empty()) return;
  const std::vector<bool> complete = masks_.complete(grammars);
  for (size_t i = 0; i < cut.size(); ++i) {
    if (complete[i]) cut[i]->finish = Finish::kStop;
    if (!grammars[i]->error.empty()) fail(*cut[i]);
  }
}

}  // namespace redrafter
