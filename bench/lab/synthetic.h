// Checkpoints with random weights, at the shapes of real models, that still continue text in a way worth
// drafting: no training, no download.
//
// The target: most tokens have a successor, whose row of the head is the token's embedding, so the target
// follows it with a probability of about 0.8 under sampling, and always when greedy. The rest have none: what
// follows them hangs on small differences of random numbers, in which every bit of the context takes part.
// The drafters: one knows the successors (an Elman cell whose input matrix is the identity) and has no idea
// of the rest; one knows nothing (a GRU).
#pragma once

#include <string>

#include "shapes.h"

namespace redrafter::lab {

// A folder in `parent`, removed with this. Writes target/, knowing/ and random/ there, in bf16.
class Synthetic {
 public:
  Synthetic(const std::string& parent, const ModelShape& model, int64_t max_positions);
  Synthetic(const Synthetic&) = delete;
  Synthetic& operator=(const Synthetic&) = delete;
  ~Synthetic();

  std::string target() const { return folder_ + "/target"; }
  std::string knowing() const { return folder_ + "/knowing"; }
  std::string random() const { return folder_ + "/random"; }

 private:
  std::string folder_;
};

}  // namespace redrafter::lab
