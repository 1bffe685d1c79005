// How much memory a load with these options will take, before anything is loaded.
#pragma once

#include "engine/messages.h"

namespace redrafter {

// Reads configuration and tensor headers only, and checks what a load would check of them. Throws as loading
// does.
MemoryUse estimate_memory(const EngineOptions& options);

}  // namespace redrafter
