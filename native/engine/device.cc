// Which device a load takes, and whether that has room for it.
#include <cstring>
#include <sstream>

#include "base/check.h"
#include "engine/plan.h"

namespace redrafter {
namespace {

uint64_t mebibytes(uint64_t bytes) { return (bytes + (uint64_t{1} << 20) - 1) >> 20; }

// TOO_LITTLE_MEMORY, when that is known.
Reason too_little_memory(const LoadPlan& plan) {
  uint64_t free = 0, total = 0;
  if (plan.backend.memory == nullptr || !plan.backend.memory(&free, &total)) return {};
  const auto needed = static_cast<uint64_t>(plan.memory.total());
  if (needed <= free) return {};
  std::ostringstream text;
  text << "the model takes " << mebibytes(needed) << " MiB of device memory, " << (free >> 20) << " of "
       << (total >> 20) << " MiB are free";
  return {"TOO_LITTLE_MEMORY", text.str()};
}

// Why a backend that works cannot have this load, though another may.
Reason dtype_reason(const EngineOptions& options, const Backend& backend) {
  const MatrixDType stored = read_model_config(options.model).quantised;
  std::vector<MatrixDType> dtypes = {parse_matrix_dtype(options.dtype), stored};
  if (!options.drafter.empty()) {
    dtypes.push_back(parse_matrix_dtype(options.drafter_dtype));
    dtypes.push_back(read_drafter_config(options.drafter).quantised);
  }
  for (const MatrixDType dtype : dtypes) {
    if (!dtype || backend.takes(*dtype)) continue;
    return {"UNSUPPORTED_DTYPE",
            std::string(backend.name) + " has no matrices of dtype \"" + dtype_name(*dtype) + "\""};
  }
  return {};
}

}  // namespace

LoadPlan plan_load(const EngineOptions& options) {
  Reason reason;
  const Backend& best = find_backend(options.device, &reason);
  if (options.device == "auto" && !best.host_memory) {
    reason = dtype_reason(options, best);
    try {
      if (reason.code == nullptr) {
        LoadPlan plan = plan_on(options, best);
        reason = too_little_memory(plan);
        if (reason.code == nullptr) return plan;
      }
    } catch (const Error& error) {  // of the budget, which the CPU may keep
      if (std::strcmp(error.code(), "ERR_OOM") != 0) throw;
      reason = {"TOO_LITTLE_MEMORY", error.what()};
    }
  }
  LoadPlan plan = plan_on(options, reason.code == nullptr ? best : find_backend("cpu"));
  plan.device_reason = std::move(reason);
  return plan;
}

void require_memory(const LoadPlan& plan) {
  const Reason reason = too_little_memory(plan);
  REDRAFTER_REQUIRE(reason.code == nullptr, "ERR_OOM", reason.message,
                    "; load with a smaller kvTokens, contextTokens or prefillChunk, or with device \"cpu\"");
}

}  // namespace redrafter
