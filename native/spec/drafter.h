// What every drafting strategy provides. It can only change speed: whatever it proposes, the target decides.
#pragma once

#include "spec/tree.h"

namespace redrafter {

// Which ids may be drafted: bits as `head_top` takes them.
struct DraftMask {
  const uint32_t* words = nullptr;  // null: all
  const int32_t* index = nullptr;   // by lane, or by beam; -1: all
  int64_t mask_words = 0;
};

// The beams of some lanes before a step, in memory of the backend: kMaxBeamWidth at most.
struct BeamsSoFar {
  int64_t first_lane, lanes, beams, step;
  const int32_t* tokens;  // [lanes, beams, columns], columns 0 .. step - 1, the root first
  int64_t columns;
  const int32_t* live;  // [lanes] beams that are none of the dead; null at step 1: one
};

// Masks that depend on what was drafted. The drafter asks before each step, and receives them where it needs
// them: so they are made while the products of the step are computed.
class BeamMasks {
 public:
  virtual ~BeamMasks() = default;
  virtual void ask(const BeamsSoFar&) = 0;  // waits for the beams, from step 2 on
  virtual DraftMask receive() = 0;          // by beam
};

// Lanes that draft together, all with the same shape. Pointers are memory of the backend.
struct Proposal {
  const float* hidden;        // [*, hidden] the target's post-final-norm states
  const int32_t* hidden_row;  // [lanes] that of the row that chose a lane's root
  const int32_t* root;        // [lanes] already final, its KV not yet in the cache
  int64_t lanes;
  int64_t width;           // beams, 1 .. kMaxBeamWidth
  int64_t length;          // drafted tokens per beam, 1 .. kMaxBeamLength
  int64_t budget;          // nodes of a tree at most, its root included, 1 .. max_tree_nodes(width, length)
  float least;             // nodes whose log-probability, as the drafter has it, is below this are left out
  DraftMask mask = {};     // of each lane
  int64_t first_lane = 0;  // as BeamsSoFar is to have it
  BeamMasks* beam_masks = nullptr;  // in the place of `mask`
};

class Drafter {
 public:
  virtual ~Drafter() = default;

  // Fills the tree of each lane with its root and the most probable nodes of its beams.
  virtual void propose(const Proposal& proposal, const DraftTrees& trees) = 0;

  virtual int64_t weight_bytes() const = 0;
  virtual int64_t workspace_bytes() const = 0;
};

}  // namespace redrafter
