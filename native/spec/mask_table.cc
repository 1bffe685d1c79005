#include "spec/mask_table.h"

#include <utility>

#include "base/check.h"

namespace redrafter {

MaskTable::MaskTable(const Backend& backend, int64_t rows, int64_t masks, int64_t vocab)
    : backend_(backend), most_rows_(rows), most_masks_(masks), words_(mask_words(vocab)) {}

void MaskTable::reserve() {
  if (reserved()) return;
  const auto bytes = static_cast<size_t>(most_rows_ + most_masks_ * words_) * sizeof(int32_t);
  auto host = std::make_unique<HostBuffer>(backend_, bytes);
  device_ = DeviceBuffer(backend_, bytes);
  host_ = std::move(host);
}

uint32_t* MaskTable::mask(int64_t number) const {
  return static_cast<uint32_t*>(host_->data()) + most_rows_ + number * words_;
}

void MaskTable::upload(int64_t masks, Stream& stream) const {
  REDRAFTER_CHECK(reserved() && masks <= most_masks_);
  const auto bytes = static_cast<size_t>(most_rows_ + masks * words_) * sizeof(int32_t);
  backend_.upload_later(device_.as<void>(), host_->data(), bytes, stream);
}

}  // namespace redrafter
