// Shared memory of a block: the static variables of all kernels, and the dynamic part between guard words.
// All of it is a NaN pattern when a block starts.
#include <sys/mman.h>

#include <algorithm>

#include "testing/simt/machine.h"
#include "testing/simt/variables.h"

namespace redrafter::simt {
namespace {

constexpr size_t kGuardBytes = 512;
char* dynamic = nullptr;  // its first guard

char pattern(uintptr_t address) { return static_cast<char>(kPoison >> (address % 4 * 8)); }

void fill(uintptr_t from, uintptr_t to) {
  for (; from % 4 != 0 && from < to; ++from) *reinterpret_cast<char*>(from) = pattern(from);
  auto* word = reinterpret_cast<uint32_t*>(from);
  std::fill(word, word + (to - from) / 4, kPoison);
  for (from += (to - from) / 4 * 4; from < to; ++from) *reinterpret_cast<char*>(from) = pattern(from);
}

bool filled(uintptr_t from, uintptr_t to) {
  for (; from < to; ++from) {
    if (*reinterpret_cast<const char*>(from) != pattern(from)) return false;
  }
  return true;
}

uintptr_t dynamic_begin() { return reinterpret_cast<uintptr_t>(dynamic) + kGuardBytes; }

}  // namespace

void* dynamic_shared() { return dynamic + kGuardBytes; }

bool in_shared(const void* address, size_t bytes) {
  const auto at = reinterpret_cast<uintptr_t>(address), end = at + bytes;
  if (at >= dynamic_begin() && end <= dynamic_begin() + machine.shared_bytes) return true;
  const auto& all = shared_variables();
  const auto after =
      std::upper_bound(all.begin(), all.end(), at, [](uintptr_t a, const auto& v) { return a < v.end; });
  return after != all.end() && at >= after->begin && end <= after->end;
}

bool poison_shared(size_t dynamic_bytes) {
  machine.shared_bytes = dynamic_bytes;
  if (dynamic == nullptr) {
    void* memory = mmap(nullptr, kMaxSharedBytes + 2 * kGuardBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return false;
    dynamic = static_cast<char*>(memory);
    fill(dynamic_begin() - kGuardBytes, dynamic_begin());
  }
  fill(dynamic_begin(), dynamic_begin() + dynamic_bytes + kGuardBytes);
  for (const SharedVariable& variable : shared_variables()) fill(variable.begin, variable.end);
  return true;
}

bool shared_guards_intact() {
  const uintptr_t end = dynamic_begin() + machine.shared_bytes;
  return filled(dynamic_begin() - kGuardBytes, dynamic_begin()) && filled(end, end + kGuardBytes);
}

}  // namespace redrafter::simt
