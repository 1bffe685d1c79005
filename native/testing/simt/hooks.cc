// What the compiler calls in kernels for every access to memory (-fsanitize=thread, without its library) and
// for misaligned pointers and indices out of bounds (-fsanitize=alignment,bounds). Not instrumented itself.
// Clang sees no misalignment where a whole vector is copied (*pointer), only at a member of one (pointer->x).
#include <cstdint>
#include <cstring>

#include "testing/simt/check.h"
#include "testing/simt/machine.h"

namespace redrafter::simt {
namespace {

// Code of .cu files also runs on the host, in threads of any kind: only what runs on a fiber is a kernel.
bool in_kernel(const void* frame) {
  return reinterpret_cast<uintptr_t>(frame) - reinterpret_cast<uintptr_t>(fiber_stacks) < kAllStackBytes;
}

// How -fsanitize describes where it calls from.
struct Source {
  const char* file;
  uint32_t line, column;
};
struct Misaligned {
  Source source;
  const void* type;
  unsigned char log_alignment, kind;
};

std::string text(const Source& source) {
  return std::string(source.file) + ":" + std::to_string(source.line) + ":" + std::to_string(source.column);
}

}  // namespace
}  // namespace redrafter::simt

using namespace redrafter::simt;

#define HOOK_OF(type) extern "C" __attribute__((visibility("hidden"))) type
#define HOOK HOOK_OF(void)
#define CHECK(address, bytes, access)                    \
  if (checking && in_kernel(__builtin_frame_address(0))) \
  check_access(address, bytes, access, nullptr, __builtin_return_address(0))

#define HOOKS(bytes)                                                                         \
  HOOK __tsan_read##bytes(void* address) { CHECK(address, bytes, Access::kRead); }           \
  HOOK __tsan_write##bytes(void* address) { CHECK(address, bytes, Access::kWrite); }         \
  HOOK __tsan_unaligned_read##bytes(void* address) { CHECK(address, bytes, Access::kRead); } \
  HOOK __tsan_unaligned_write##bytes(void* address) { CHECK(address, bytes, Access::kWrite); }

HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

HOOK __tsan_read_range(void* address, unsigned long bytes) { CHECK(address, bytes, Access::kRead); }
HOOK __tsan_write_range(void* address, unsigned long bytes) { CHECK(address, bytes, Access::kWrite); }

HOOK_OF(void*) __tsan_memcpy(void* to, const void* from, size_t bytes) {
  CHECK(from, bytes, Access::kRead);
  CHECK(to, bytes, Access::kWrite);
  return std::memcpy(to, from, bytes);
}
HOOK_OF(void*) __tsan_memmove(void* to, const void* from, size_t bytes) {
  CHECK(from, bytes, Access::kRead);
  CHECK(to, bytes, Access::kWrite);
  return std::memmove(to, from, bytes);
}
HOOK_OF(void*) __tsan_memset(void* to, int value, size_t bytes) {
  CHECK(to, bytes, Access::kWrite);
  return std::memset(to, value, bytes);
}

// The guard of a static variable, in code for the host.
HOOK_OF(unsigned char) __tsan_atomic8_load(const volatile unsigned char* address, int) {
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}

HOOK __tsan_init() {}
HOOK __tsan_func_entry(void*) {}
HOOK __tsan_func_exit() {}

HOOK __ubsan_handle_type_mismatch_v1(const Misaligned* where, const void* pointer) {
  if (!in_kernel(__builtin_frame_address(0))) return;
  fail("misaligned address " + hex(pointer) + ", which needs a multiple of " +
       std::to_string(1u << where->log_alignment) + ", at " + text(where->source));
}

HOOK __ubsan_handle_out_of_bounds(const Source* where, uintptr_t index) {
  if (!in_kernel(__builtin_frame_address(0))) return;
  fail("index " + std::to_string(static_cast<intptr_t>(index)) + " is out of bounds, at " + text(*where));
}

namespace redrafter::simt {

bool can_check() {
#if defined(REDRAFTER_SIMT_CHECKED)
  return true;
#else
  return false;
#endif
}

}  // namespace redrafter::simt
