// What the lanes of a round must not draft, as the target would not take it: ids that are banned, or as good
// as that by their bias; and what the grammar of a lane does not allow behind each of its beams, which the
// host is asked for before each step.
#pragma once

#include <memory>
#include <vector>

#include "ops/ops.h"
#include "spec/control.h"
#include "spec/drafter.h"
#include "spec/mask_batch.h"
#include "spec/mask_table.h"

namespace redrafter {

class DraftMasks final : public BeamMasks {
 public:
  // Of a round with `lanes` lanes at most; `grammars` asks for what their grammars allow.
  DraftMasks(const Backend& backend, int64_t lanes, int64_t vocab, MaskBatch& grammars, Stream& stream);
  DraftMasks(const DraftMasks&) = delete;
  DraftMasks& operator=(const DraftMasks&) = delete;

  // Take the memory for lanes that have such ids, or a grammar, unless they have it. Throw ERR_OOM.
  void reserve_lanes() { lane_masks_.reserve(); }
  void reserve_beams();

  void clear();
  void add_lane(const LaneControl* control, LaneGrammar* grammar);  // null: all ids, any text
  // Nobody waits for it: nothing may be changed here before the stream has got so far.
  void upload() const;

  // Whether there is a lane that must not draft some ids, whatever it has drafted.
  bool any() const { return masks_ > 0; }
  // Those, of lanes from `first` on.
  DraftMask from(int64_t first) const;
  // Whether one of these lanes has a grammar, so that there are masks for its beams.
  bool has_grammar(int64_t first, int64_t lanes) const;

  void ask(const BeamsSoFar& beams) override;
  DraftMask receive() override;

 private:
  struct Lane {
    int32_t mask;          // in lane_masks_, or -1
    LaneGrammar* grammar;  // null: none
  };
  // The beams of a lane in the last question.
  struct Asked {
    int32_t mask;               // of the lane
    int64_t tree;               // in the question; -1: it is not in there
    std::vector<int32_t> leaf;  // of its tree, by beam
  };

  void look(const BeamsSoFar& beams);
  void ask_lane(LaneGrammar& grammar, const int32_t* beams, int64_t live, const BeamsSoFar& shape,
                Asked& asked);
  static int32_t allowed(const MaskAnswer& found, const Asked& asked, size_t beam);
  int32_t add_beam_mask(int32_t lane_mask, const MaskAnswer& found, int32_t number);

  const Backend& backend_;
  MaskBatch& grammars_;
  Stream& stream_;
  MaskTable lane_masks_, beam_masks_;
  std::unique_ptr<HostBuffer> beams_;  // [kMaxBeamWidth, columns] tokens; [kMaxBeamWidth] live beams by lane
  std::vector<Lane> lanes_;
  int64_t masks_ = 0;  // in lane_masks_
  int64_t beams_each_ = 0;
  std::vector<Asked> asked_;
  int64_t beam_masks_count_ = 0;
  bool sending_ = false;  // what beam_masks_ holds may be on its way
};

}  // namespace redrafter
