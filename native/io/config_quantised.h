// How the matrices of a checkpoint are quantised: the "quantization_config" of its config.json.
#pragma once

#include <optional>

#include "base/dtype.h"
#include "io/config_object.h"

namespace redrafter {

// Absent where there is no such key. Ours is {"quant_method": "redrafter", "format": "q8_0" or "q4_0",
// "group_size": 32}: every matrix [N, K] of the model or drafter is a u8 tensor [N, bytes of the groups of K
// weights] (base/quant.h); vectors are as ever. Throws ERR_CONFIG for any other.
std::optional<DType> read_quantised(const ConfigObject& config);

}  // namespace redrafter
