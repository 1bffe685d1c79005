// What the lanes of a round must not draft, as the target would not take it: ids that are banned, or as good
// as that by their bias; and what the grammar of a lane does not allow behind a beam, where the host can look
// between steps.
#pragma once

#include <memory>
#include <vector>

#include "ops/ops.h"
#include "spec/control.h"
#include "spec/drafter.h"

namespace redrafter {

class DraftMasks {
 public:
  // Of a round with `lanes` lanes at most.
  DraftMasks(const Backend& backend, int64_t lanes, int64_t vocab);
  DraftMasks(const DraftMasks&) = delete;
  DraftMasks& operator=(const DraftMasks&) = delete;

  // Takes the memory for lanes with such ids, unless it has it. Throws ERR_OOM.
  void reserve();

  void clear();
  void add_lane(const LaneControl* control);  // null: all ids
  bool any() const { return masks_ > 0; }     // whether a lane must not draft all
  // Nobody waits for it: nothing may be changed here before the stream has got so far.
  void upload(Stream& stream) const;
  // Of lanes from `first` on.
  DraftMask from(int64_t first) const;

  // Masks of beams: those of the `beams` beams of each of `lanes` lanes from `first` on, to begin with as
  // their lanes'.
  void begin_beams(int64_t first, int64_t lanes, int64_t beams);
  void allow(int64_t row, const int32_t* words);  // no more than these, for a beam
  DraftMask beams() const;

 private:
  int32_t* index() const { return static_cast<int32_t*>(host_->data()); }
  uint32_t* words(int64_t mask) const;

  const Backend& backend_;
  const int64_t most_lanes_, words_;
  std::unique_ptr<HostBuffer> host_;  // [lanes] the mask of each; [lanes, words_] masks
  DeviceBuffer device_;
  int64_t lanes_ = 0, masks_ = 0;
  std::vector<int32_t> beam_index_;
  std::vector<uint32_t> beam_words_;  // [rows, words_]
};

}  // namespace redrafter
