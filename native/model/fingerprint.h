// One number for what a model computes: equal for two models only if they give the same logits, apart from
// accidents of one in 2^64.
#pragma once

#include "model/weights.h"

namespace redrafter {

uint64_t model_fingerprint(const ModelConfig& config, const ModelWeights& weights);

}  // namespace redrafter
