// Shared memory of a block: the static variables of all kernels, which lie in one section, and the dynamic
// part, which lies between guard words. Both are a NaN pattern when a block starts.
#include <sys/mman.h>

#include <algorithm>

#include "testing/simt/machine.h"

// Made by the linker; null when no kernel has such a variable.
extern "C" {
extern char __start_simt_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_simt_shared[] __attribute__((weak, visibility("hidden")));
}

namespace redrafter::simt {
namespace {

constexpr size_t kGuardBytes = 4096;
char* dynamic = nullptr;  // its first guard

void fill(char* from, char* to) {
  std::fill(reinterpret_cast<uint32_t*>(from), reinterpret_cast<uint32_t*>(to), kPoison);
}

bool poisoned(const char* from, const char* to) {
  return std::all_of(reinterpret_cast<const uint32_t*>(from), reinterpret_cast<const uint32_t*>(to),
                     [](uint32_t word) { return word == kPoison; });
}

char* dynamic_end() { return dynamic + kGuardBytes + (machine.shared_bytes + 3) / 4 * 4; }

}  // namespace

void* dynamic_shared() { return dynamic + kGuardBytes; }

bool in_shared(const void* address, size_t bytes) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  const auto within = [&](const char* from, const char* to) {
    return at >= reinterpret_cast<uintptr_t>(from) && at + bytes <= reinterpret_cast<uintptr_t>(to);
  };
  return within(dynamic + kGuardBytes, dynamic + kGuardBytes + machine.shared_bytes) ||
         within(__start_simt_shared, __stop_simt_shared);
}

bool poison_shared(size_t dynamic_bytes) {
  machine.shared_bytes = dynamic_bytes;
  if (dynamic == nullptr) {
    void* memory = mmap(nullptr, kMaxSharedBytes + 2 * kGuardBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return false;
    dynamic = static_cast<char*>(memory);
    fill(dynamic, dynamic + kGuardBytes);
  }
  fill(dynamic + kGuardBytes, dynamic_end() + std::min<size_t>(kGuardBytes, 512));
  if (__start_simt_shared != nullptr) {
    char* end = __stop_simt_shared;
    fill(__start_simt_shared, end - (end - __start_simt_shared) % 4);
  }
  return true;
}

bool shared_guards_intact() {
  return poisoned(dynamic, dynamic + kGuardBytes) && poisoned(dynamic_end(), dynamic_end() + 512);
}

}  // namespace redrafter::simt
