// What every drafting strategy provides. It can only change speed: whatever it proposes, the target decides.
#pragma once

#include "spec/tree.h"

namespace redrafter {

struct Proposal {
  const float* hidden;  // [hidden], the target's post-final-norm state of the row that chose the root
  int32_t root;         // already final, its KV not yet in the cache
  int64_t width;        // beams, 1 .. kMaxBeamWidth
  int64_t length;       // drafted tokens per beam, 1 .. kMaxBeamLength
};

class Drafter {
 public:
  virtual ~Drafter() = default;

  // Fills `tree` with the root and at most width * length more nodes.
  virtual void propose(const Proposal& proposal, DraftTree& tree) = 0;

  virtual int64_t weight_bytes() const = 0;
  virtual int64_t workspace_bytes() const = 0;
};

}  // namespace redrafter
