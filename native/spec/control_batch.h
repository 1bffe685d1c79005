// What the lanes of a round change in their logits, sent to the backend in one copy beside the round's batch.
// It takes memory only once a request asks for control, and a round without such a request neither copies nor
// launches.
#pragma once

#include <memory>
#include <set>

#include "base/arena.h"
#include "ops/ops.h"
#include "spec/control.h"

namespace redrafter {

class ControlBatch {
 public:
  // `rows` of a round at most, and so lanes.
  ControlBatch(const Backend& backend, int64_t rows) : backend_(backend), most_rows_(rows) {}
  ControlBatch(const ControlBatch&) = delete;
  ControlBatch& operator=(const ControlBatch&) = delete;

  // What a lane can need: `entries` at most, and rows of logits that are kept, those of the largest tree that
  // it may get in any round; 0 for none.
  struct Need {
    int64_t entries = 0, rows = 0;
    int64_t saved() const { return rows * adjust_saved(entries); }
  };
  // Room for a lane until its owner goes, which must be before the batch does. Throws ERR_OOM.
  class Room {
   public:
    Room(ControlBatch& batch, const Need& need) : batch_(batch), need_(need) { batch_.take(need); }
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;
    ~Room() { batch_.give_back(need_); }

   private:
    ControlBatch& batch_;
    Need need_;
  };

  // Lanes that choose tokens, in their order. One without control, which may be padding:
  void clear();
  void add_lane();
  // One with control, which has so many rows.
  void add_lane(const LaneControl& control, int64_t rows, bool keeps_logits);
  // Nobody waits for it: nothing may be changed here before the stream has got so far.
  void upload(Stream& stream) const;

  bool any() const { return any_; }                 // whether a lane has control
  bool keeps_logits() const { return saved_ > 0; }  // whether adjust_undo is to follow
  // The arguments of both ops but for the tree and the logits.
  AdjustParams params() const;
  // Changes when the arrays have moved: what was captured with the old ones is void.
  int64_t moves() const { return moves_; }

 private:
  struct Arrays {
    AdjustLane* lane;
    AdjustEntry* entries;
  };
  Arrays carve(Arena& arena, int64_t entries) const;
  size_t bytes(int64_t entries) const;
  void grow_entries(int64_t wanted);
  void grow_saved(int64_t wanted, int64_t most);
  void take(const Need& need);
  void give_back(const Need& need);

  const Backend& backend_;
  int64_t most_rows_;
  int64_t wanted_entries_ = 0, wanted_saved_ = 0;  // of all rooms
  std::multiset<int64_t> kept_;                    // adjust_saved() of the rooms that keep logits
  int64_t most_entries_ = 0, most_saved_ = 0;      // there is memory for
  std::unique_ptr<HostBuffer> host_memory_;
  DeviceBuffer device_memory_, saved_memory_;
  Arrays host_{}, device_{};
  int64_t moves_ = 0;
  int64_t lanes_ = 0, entries_ = 0, saved_ = 0;  // of this round
  bool any_ = false;
};

}  // namespace redrafter
