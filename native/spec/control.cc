#include "spec/control.h"

#include <algorithm>

namespace redrafter {

// A drafted id with such a bias would be e^20 times less probable than the model has it.
constexpr float kUndraftedBias = -20.0f;

LaneControl::LaneControl(const ControlSpec& spec, const StopRules& stop, const std::vector<int32_t>& prompt)
    : penalizes_(spec.penalizes()),
      acts_always_(penalizes_ || !spec.banned.empty() || !spec.bias_ids.empty()),
      min_tokens_(stop.eos.empty() && stop.stop.empty() ? 0 : spec.min_tokens) {
  lane_.repetition = spec.repetition;
  lane_.presence = spec.presence;
  lane_.frequency = spec.frequency;
  // All ids at once: one by one, a long prompt would move its entries as often as it has ids.
  std::vector<int32_t> ids = spec.banned;
  ids.insert(ids.end(), spec.bias_ids.begin(), spec.bias_ids.end());
  if (penalizes_) ids.insert(ids.end(), prompt.begin(), prompt.end());
  if (min_tokens_ > 0) {
    ids.insert(ids.end(), stop.eos.begin(), stop.eos.end());
    ids.insert(ids.end(), stop.stop.begin(), stop.stop.end());
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  for (const int32_t id : ids) entries_.push_back({id, 0, 0.0f, 0});

  for (const int32_t id : spec.banned) entry(id).flags |= kAdjustBanned;
  undrafted_ = spec.banned;
  for (size_t i = 0; i < spec.bias_ids.size(); ++i) {
    entry(spec.bias_ids[i]).bias = spec.bias[i];
    if (spec.bias[i] <= kUndraftedBias) undrafted_.push_back(spec.bias_ids[i]);
  }
  if (penalizes_) {
    for (const int32_t id : prompt) entry(id).flags |= kAdjustSeen;
  }
  if (min_tokens_ > 0) {
    for (const auto* list : {&stop.eos, &stop.stop}) {
      for (const int32_t id : *list) entry(id).flags |= kAdjustEnding;
    }
  }
}

AdjustEntry& LaneControl::entry(int32_t id) {
  const auto at = std::lower_bound(entries_.begin(), entries_.end(), id,
                                   [](const AdjustEntry& e, int32_t wanted) { return e.id < wanted; });
  if (at != entries_.end() && at->id == id) return *at;
  return *entries_.insert(at, {id, 0, 0.0f, 0});
}

void LaneControl::add(const std::vector<int32_t>& generated) {
  generated_ += static_cast<int64_t>(generated.size());
  if (!penalizes_) return;
  for (const int32_t id : generated) {
    AdjustEntry& known = entry(id);
    known.generated += 1;
    known.flags |= kAdjustSeen;
  }
}

void LaneControl::hold(const std::vector<int32_t>& tokens) {
  if (!penalizes_) return;
  for (AdjustEntry& known : entries_) known.flags &= ~kAdjustSeen;
  for (const int32_t id : tokens) entry(id).flags |= kAdjustSeen;
}

AdjustLane LaneControl::lane() const {
  AdjustLane lane = lane_;
  lane.entries = static_cast<int64_t>(entries_.size());
  lane.ending_depth = static_cast<int32_t>(std::max<int64_t>(0, min_tokens_ - generated_));
  return lane;
}

int64_t LaneControl::most_entries(int64_t tokens, int64_t vocab) const {
  return std::min(vocab, static_cast<int64_t>(entries_.size()) + (penalizes_ ? tokens : 0));
}

}  // namespace redrafter
