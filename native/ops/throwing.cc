#include "ops/throwing.h"

#include "base/check.h"

namespace redrafter {

void fail_without(const char* op) { fail("ERR_BACKEND", "this backend has no op \"", op, "\""); }

// Kernels run on behind the calls, so a fault of one may be noticed in a later one.
void fail_cuda(const char* op, const Stream& stream) {
  fail("ERR_CUDA", "CUDA failed in ", op, ": ", stream.error, " (",
       stream.failed == nullptr ? "unknown call" : stream.failed, ")");
}

void fail_memory(const std::string& what, bool (*memory)(uint64_t* free, uint64_t* total)) {
  uint64_t free = 0, total = 0;
  REDRAFTER_REQUIRE(!memory(&free, &total), "ERR_OOM", "cannot allocate ", what, " of device memory; ",
                    free >> 20, " of ", total >> 20, " MiB are free");
  fail("ERR_OOM", "cannot allocate ", what, " of device memory");
}

}  // namespace redrafter
