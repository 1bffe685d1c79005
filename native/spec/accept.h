// Where decoding ends: the cut inside an accepted run, exactly where plain decoding would stop.
#pragma once

#include <cstdint>
#include <vector>

namespace redrafter {

enum class Finish : uint8_t { kNone, kEos, kStop, kLength, kAbort, kDeadline };

struct StopRules {
  std::vector<int32_t> eos;   // ids that end the text
  std::vector<int32_t> stop;  // ids the caller asked to stop at
};

struct Cut {
  int64_t keep;  // tokens of the run to emit; an ending id is itself emitted
  Finish finish;
};

// `run` holds the tokens a round chose, in order; at most `remaining` >= 1 of them may be emitted.
Cut cut_run(const std::vector<int32_t>& run, int64_t remaining, const StopRules& rules);

}  // namespace redrafter
