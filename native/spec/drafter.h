// What every drafting strategy provides. It can only change speed: whatever it proposes, the target decides.
#pragma once

#include "spec/tree.h"

namespace redrafter {

// Lanes that draft together, all with the same shape. Pointers are memory of the backend.
struct Proposal {
  const float* hidden;        // [*, hidden] the target's post-final-norm states
  const int32_t* hidden_row;  // [lanes] that of the row that chose a lane's root
  const int32_t* root;        // [lanes] already final, its KV not yet in the cache
  int64_t lanes;
  int64_t width;   // beams, 1 .. kMaxBeamWidth
  int64_t length;  // drafted tokens per beam, 1 .. kMaxBeamLength
  int64_t budget;  // nodes of a tree at most, its root included, 1 .. max_tree_nodes(width, length)
  float least;     // nodes whose log-probability, as the drafter has it, is below this are left out
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
