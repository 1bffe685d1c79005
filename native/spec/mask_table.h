// Masks of ids and which of them each row has, as ops take them: filled by the host, sent in one copy. It
// takes memory only once it is needed.
#pragma once

#include <memory>

#include "ops/ops.h"

namespace redrafter {

class MaskTable {
 public:
  MaskTable(const Backend& backend, int64_t rows, int64_t masks, int64_t vocab);

  // Takes the memory, unless it has it. Throws ERR_OOM.
  void reserve();
  bool reserved() const { return host_ != nullptr; }

  int64_t most_masks() const { return most_masks_; }
  int64_t words() const { return words_; }  // of a mask

  // On the host: the mask of each row, and the words of a mask.
  int32_t* index() const { return static_cast<int32_t*>(host_->data()); }
  uint32_t* mask(int64_t number) const;

  // All rows and so many masks. Nobody waits for it: nothing may be changed here before the stream has got so
  // far.
  void upload(int64_t masks, Stream& stream) const;

  // On the backend.
  const int32_t* sent_index() const { return device_.as<int32_t>(); }
  const uint32_t* sent_masks() const { return device_.as<uint32_t>() + most_rows_; }

 private:
  const Backend& backend_;
  const int64_t most_rows_, most_masks_, words_;
  std::unique_ptr<HostBuffer> host_;  // [rows] the mask of each; [masks, words_]
  DeviceBuffer device_;
};

}  // namespace redrafter
