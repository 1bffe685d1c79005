// What loading a model comes to: decided from options, config.json and tensor headers alone, then carried
// out, on a real backend to load or on a measuring one to estimate. The same code runs for both.
#pragma once

#include <memory>

#include "engine/messages.h"
#include "kv/cache.h"
#include "model/forward.h"
#include "spec/drafters/recurrent.h"

namespace redrafter {

struct LoadPlan {
  const Backend& backend;
  MatrixDType dtype;
  ModelConfig config;
  Checkpoint checkpoint;
  std::string drafter;  // directory, or empty
  MatrixDType drafter_dtype;
  ForwardLimits limits;
  int64_t kv_tokens;
  int64_t prefill_chunk;
  KvShape kv;
  MemoryUse memory;           // what it will take
  Reason device_reason = {};  // why device "auto" did not take CUDA
};

// Decides all of it, on the device that the options say (device.cc), how large the KV cache is included; no
// weight is read. Throws ERR_INVALID_ARGUMENT, ERR_BACKEND, ERR_FILE, ERR_CONFIG, ERR_MODEL_FORMAT,
// ERR_DRAFTER, and ERR_OOM where it would take more than the budget.
LoadPlan plan_load(const EngineOptions& options);
LoadPlan plan_on(const EngineOptions& options, const Backend& backend);

// The target and its drafter, which may be null, in the memory of `backend`.
struct LoadedWeights {
  std::unique_ptr<Model> model;
  std::unique_ptr<RecurrentDrafter> drafter;
};
LoadedWeights load_weights(const LoadPlan& plan, const Backend& backend, Stream& stream,
                           const LoadProgress& progress);

MemoryUse memory_use(const LoadPlan& plan, const LoadedWeights& loaded);

// Throws ERR_OOM when the backend has less memory free than the plan takes. What fits only just may still
// find too little, as memory is given out in pieces and not to this process alone.
void require_memory(const LoadPlan& plan);

}  // namespace redrafter
