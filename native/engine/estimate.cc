#include "engine/estimate.h"

#include "engine/plan.h"

namespace redrafter {

MemoryUse estimate_memory(const EngineOptions& options) {
  const LoadPlan plan = plan_load(options);
  const Backend backend = measuring(plan.backend);
  Stream stream;
  return memory_use(plan, load_weights(plan, backend, stream, [](uint64_t) { return true; }));
}

}  // namespace redrafter
