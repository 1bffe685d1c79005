#include "ops/throwing.h"

#include "base/check.h"

namespace redrafter {

void fail_without(const char* op) { fail("ERR_BACKEND", "this backend has no op \"", op, "\""); }

// Kernels run on behind the calls, so a fault of one may be noticed in a later one.
void fail_cuda(const char* op, const Stream& stream) {
  fail("ERR_CUDA", "CUDA failed in ", op, ": ", stream.error, " (",
       stream.failed == nullptr ? "unknown call" : stream.failed, ")");
}

void fail_memory(const std::string& what, const std::string& free) {
  fail("ERR_OOM", "cannot allocate ", what, " of device memory", free.empty() ? "" : "; ", free);
}

}  // namespace redrafter
