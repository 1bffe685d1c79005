// Whole rounds with a simulated acceptance; rounds.cc.
#pragma once

#include "case.h"
#include "model/weights.h"

namespace redrafter::lab {

struct RoundFigures {
  int64_t requests;        // in one batch
  double simulated;        // tokens per step that were asked for; 1: plain decoding
  double tokens_per_step;  // that came out
  double ms;               // of a round, by the host's clock
  double device_ms;        // of what the device does in it, launched again and again without a gap
  double speedup;          // over plain decoding of the same batch
  double eta() const { return speedup / tokens_per_step; }
  double host_us() const { return 1000 * (ms - device_ms); }
};

// Beam width 8, length 4, our GRU drafter.
std::vector<RoundFigures> measure_rounds(const Backend& backend, Stream& stream, const ModelShape& model,
                                         int64_t requests);

// steps.cc
ModelConfig random_config(const ModelShape& model);
ModelWeights random_weights(Memory& memory, const ModelShape& model);

}  // namespace redrafter::lab
