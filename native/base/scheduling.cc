#include "base/scheduling.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#endif

namespace redrafter {

#if defined(__linux__) && defined(SYS_sched_setattr) && defined(SYS_sched_getattr)

namespace {

// struct sched_attr of the kernel, its first version; not all C libraries have it.
struct Attributes {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;  // nanoseconds
};
static_assert(sizeof(Attributes) == 48);

constexpr uint32_t kNormal = 0, kBatch = 3;  // policies that share by weight: SCHED_OTHER, SCHED_BATCH

}  // namespace

void prefer_long_turns() noexcept {
  Attributes attributes{};
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0) return;
  const bool shares = attributes.policy == kNormal || attributes.policy == kBatch;
  if (!shares || attributes.runtime == 0) return;  // before Linux 6.12 no thread has a turn of its own
  attributes.size = sizeof attributes;
  attributes.runtime *=
      2;  // longer than that of others is what matters, and more costs more beside other programs
  syscall(SYS_sched_setattr, 0, &attributes, 0);  // refused: then turns stay as they are
}

#else

void prefer_long_turns() noexcept {}

#endif

}  // namespace redrafter
