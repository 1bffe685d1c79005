#include "engine/estimate.h"

#include "engine/plan.h"

namespace redrafter {

MemoryUse estimate_memory(const EngineOptions& options) { return planned_memory(plan_load(options)); }

MemoryUse planned_memory(const LoadPlan& plan) {
  const Backend backend = measuring(plan.backend);
  BackendStream stream(backend, nullptr);
  return memory_use(plan, load_weights(plan, backend, stream.get(), [](uint64_t) { return true; }));
}

}  // namespace redrafter
