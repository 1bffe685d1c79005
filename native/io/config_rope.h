// The rotary embedding part of config.json.
#pragma once

#include "io/config.h"
#include "io/config_object.h"

namespace redrafter {

// Reads "rope_theta" with "rope_scaling", or the newer "rope_parameters" that holds both. `max_positions` is
// "max_position_embeddings". Throws ERR_CONFIG, also for a kind of scaling that redrafter does not know:
// computing positions wrongly would give fluent nonsense.
RopeConfig read_rope(const ConfigObject& config, int64_t max_positions);

}  // namespace redrafter
