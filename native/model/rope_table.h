// cos and sin of every position and frequency, with the configured scaling folded in.
#pragma once

#include <vector>

#include "io/config.h"

namespace redrafter {

// [positions, head_dim / 2, 2]. Frequencies and angles are rounded to fp32 as Hugging Face transformers does,
// so that long positions agree with what models were trained and evaluated with.
std::vector<float> rope_table(const RopeConfig& rope, int64_t head_dim, int64_t positions);

}  // namespace redrafter
