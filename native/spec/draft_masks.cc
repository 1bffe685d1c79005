#include "spec/draft_masks.h"

#include <algorithm>

#include "base/check.h"

namespace redrafter {

DraftMasks::DraftMasks(const Backend& backend, int64_t lanes, int64_t vocab)
    : backend_(backend), most_lanes_(lanes), words_(mask_words(vocab)) {}

void DraftMasks::reserve() {
  if (host_ != nullptr) return;
  const auto bytes = static_cast<size_t>(most_lanes_ * (1 + words_)) * sizeof(int32_t);
  auto host = std::make_unique<HostBuffer>(backend_, bytes);
  device_ = DeviceBuffer(backend_, bytes);
  host_ = std::move(host);
}

uint32_t* DraftMasks::words(int64_t mask) const {
  return reinterpret_cast<uint32_t*>(index() + most_lanes_ + mask * words_);
}

void DraftMasks::clear() { lanes_ = masks_ = 0; }

void DraftMasks::add_lane(const LaneControl* control) {
  const int64_t lane = lanes_++;
  if (host_ == nullptr) return;
  index()[lane] = -1;
  if (control == nullptr || control->undrafted().empty()) return;
  REDRAFTER_CHECK(lane < most_lanes_);
  index()[lane] = static_cast<int32_t>(masks_);
  uint32_t* mask = words(masks_++);
  std::fill_n(mask, words_, ~uint32_t{0});
  for (const int32_t id : control->undrafted()) mask[id / 32] &= ~(uint32_t{1} << (id % 32));
}

void DraftMasks::upload(Stream& stream) const {
  if (!any()) return;
  const auto bytes = static_cast<size_t>(most_lanes_ + masks_ * words_) * sizeof(int32_t);
  backend_.upload_later(device_.as<void>(), host_->data(), bytes, stream);
}

DraftMask DraftMasks::from(int64_t first) const {
  if (!any()) return {};
  const auto* device = device_.as<int32_t>();
  return {reinterpret_cast<const uint32_t*>(device + most_lanes_), device + first, words_};
}

void DraftMasks::begin_beams(int64_t first, int64_t lanes, int64_t beams) {
  const int64_t rows = lanes * beams;
  beam_index_.assign(static_cast<size_t>(rows), -1);
  beam_words_.assign(static_cast<size_t>(rows * words_), ~uint32_t{0});
  for (int64_t row = 0; any() && row < rows; ++row) {
    const int32_t mask = index()[first + row / beams];
    if (mask >= 0) allow(row, reinterpret_cast<const int32_t*>(words(mask)));
  }
}

void DraftMasks::allow(int64_t row, const int32_t* words) {
  beam_index_[static_cast<size_t>(row)] = static_cast<int32_t>(row);
  uint32_t* mask = &beam_words_[static_cast<size_t>(row * words_)];
  for (int64_t i = 0; i < words_; ++i) mask[i] &= static_cast<uint32_t>(words[i]);
}

DraftMask DraftMasks::beams() const { return {beam_words_.data(), beam_index_.data(), words_}; }

}  // namespace redrafter
