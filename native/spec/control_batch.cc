#include "spec/control_batch.h"

#include <algorithm>

#include "base/check.h"

namespace redrafter {

ControlBatch::Arrays ControlBatch::carve(Arena& arena, int64_t entries) const {
  Arrays a{};
  a.lane = arena.take<AdjustLane>(most_rows_);
  a.entries = arena.take<AdjustEntry>(entries);  // last: only those in use are sent
  return a;
}

size_t ControlBatch::bytes(int64_t entries) const {
  Arena measure;
  carve(measure, entries);
  return measure.used();
}

// Both are doubled, so that requests which come one after another seldom move the arrays.
void ControlBatch::grow_entries(int64_t wanted) {
  if (wanted <= most_entries_ && host_memory_ != nullptr) return;
  const int64_t most = std::max<int64_t>({wanted, 2 * most_entries_, 1024});
  auto host = std::make_unique<HostBuffer>(backend_, bytes(most));
  device_memory_ = DeviceBuffer(backend_, bytes(most));
  host_memory_ = std::move(host);
  Arena host_arena(host_memory_->data(), bytes(most));
  host_ = carve(host_arena, most);
  Arena device_arena(device_memory_.as<void>(), bytes(most));
  device_ = carve(device_arena, most);
  most_entries_ = most;
  ++moves_;
}

void ControlBatch::grow_saved(int64_t wanted, int64_t most) {
  if (wanted <= most_saved_) return;
  most = std::max(wanted, std::min(2 * most_saved_, most));
  saved_memory_ = DeviceBuffer(backend_, static_cast<size_t>(most) * sizeof(float));
  most_saved_ = most;
  ++moves_;
}

// The rows of all lanes together are those of one pass, so many lanes that keep logits need less than each
// for itself.
void ControlBatch::take(const Need& need) {
  const int64_t entries = wanted_entries_ + need.entries, saved = wanted_saved_ + need.saved();
  grow_entries(entries);
  if (need.rows > 0) {
    const int64_t own = adjust_saved(need.entries);
    const int64_t largest = kept_.empty() ? own : std::max(own, *kept_.rbegin());
    grow_saved(std::min(saved, most_rows_ * largest), most_rows_ * largest);
    kept_.insert(own);
  }
  wanted_entries_ = entries;
  wanted_saved_ = saved;
}

void ControlBatch::give_back(const Need& need) {
  wanted_entries_ -= need.entries;
  wanted_saved_ -= need.saved();
  if (need.rows > 0) kept_.erase(kept_.find(adjust_saved(need.entries)));
}

void ControlBatch::clear() {
  lanes_ = entries_ = saved_ = 0;
  any_ = false;
}

void ControlBatch::add_lane() {
  const int64_t index = lanes_++;
  if (host_memory_ != nullptr) host_.lane[index] = {};
}

void ControlBatch::add_lane(const LaneControl& control, int64_t rows, bool keeps_logits) {
  const int64_t index = lanes_++;
  REDRAFTER_CHECK(index < most_rows_);
  AdjustLane lane = control.lane();
  REDRAFTER_CHECK(entries_ + lane.entries <= most_entries_);
  lane.first_entry = entries_;
  if (keeps_logits) {
    lane.saved = saved_;
    saved_ += rows * adjust_saved(lane.entries);
    REDRAFTER_CHECK(saved_ <= most_saved_);
  }
  host_.lane[index] = lane;
  std::copy(control.entries().begin(), control.entries().end(), host_.entries + entries_);
  entries_ += lane.entries;
  any_ = true;
}

void ControlBatch::upload(Stream& stream) const {
  if (!any_) return;
  const auto* begin = static_cast<const uint8_t*>(host_memory_->data());
  const auto* end = reinterpret_cast<const uint8_t*>(host_.entries + entries_);
  backend_.upload_later(device_memory_.as<void>(), begin, static_cast<size_t>(end - begin), stream);
}

AdjustParams ControlBatch::params() const {
  AdjustParams p{};
  p.lane = device_.lane;
  p.entries = device_.entries;
  p.saved = saved_memory_.as<float>();
  p.lanes = lanes_;
  return p;
}

}  // namespace redrafter
