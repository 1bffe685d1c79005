#include "engine/estimate.h"

#include "engine/plan.h"

namespace redrafter {

MemoryUse estimate_memory(const EngineOptions& options) { return plan_load(options).memory; }

}  // namespace redrafter
