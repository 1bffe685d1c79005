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
      const int64_t first = group->first_node + (i - group->first) * group->nodes;
      masks_.add_lane(*lane->grammar, batch_.first_output(i), results_.nodes[i],
                      &token[static_cast<size_t>(first)], &parent[static_cast<size_t>(first)]);
    } else {
      masks_.add_lane(*lane->grammar, batch_.first_output(i), 1, &kRoot, &kNoParent);
    }
  }
  masks_.ask();
}

// What must not be drafted. Sent like control, and before the lanes draft.
void Round::fill_draft_masks() {
  draft_masks_.clear();
  for (int64_t i = 0; i < drafting_; ++i) {
    const Lane* lane = order_[static_cast<size_t>(i)];
    draft_masks_.add_lane(lane == nullptr ? nullptr : lane->control.get());
  }
  draft_masks_.upload(stream_);
}

// What the grammars of lanes allow behind each of their beams, as far as there are any. Behind the end of a
// text nothing is chosen, so anything may be drafted there, and the beams stay as long as the others.
DraftMask Round::mask_beams(const Group& group, const BeamsSoFar& b) {
  masks_.clear();
  std::vector<std::vector<int64_t>> leaves;  // by lane that is asked for: nodes of its beams
  std::vector<int64_t> first_row;
  for (int64_t i = 0; i < b.lanes; ++i) {
    const Lane* lane = order_[static_cast<size_t>(group.first + b.first_lane + i)];
    if (lane == nullptr || lane->grammar == nullptr || !lane->grammar->error.empty()) continue;
    std::vector<int32_t> token{kRoot}, parent{kNoParent};
    leaves.emplace_back();
    first_row.push_back(i * b.beams);
    for (int64_t beam = 0; beam < (b.live == nullptr ? 1 : b.live[i]); ++beam) {
      int32_t node = 0;
      for (int64_t column = 1; column < b.step; ++column) {
        token.push_back(b.tokens[(i * b.beams + beam) * b.columns + column]);
        parent.push_back(node);
        node = static_cast<int32_t>(token.size()) - 1;
      }
      leaves.back().push_back(node);
    }
    masks_.add_lane(*lane->grammar, 0, static_cast<int64_t>(token.size()), token.data(), parent.data());
  }
  if (!masks_.any()) return {};
  masks_.ask();
  const MaskAnswer found = masks_.answer();
  const int64_t words = mask_words(model_.config().vocab);
  draft_masks_.begin_beams(group.first + b.first_lane, b.lanes, b.beams);
  for (size_t i = 0; i < leaves.size(); ++i) {
    for (size_t beam = 0; found.trees[i].known && beam < leaves[i].size(); ++beam) {
      const int32_t mask = found.trees[i].mask[static_cast<size_t>(leaves[i][beam])];
      if (mask >= 0)
        draft_masks_.allow(first_row[i] + static_cast<int64_t>(beam),
                           &found.words[static_cast<size_t>(mask * words)]);
    }
  }
  return draft_masks_.beams();
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
