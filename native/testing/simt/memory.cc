#include "testing/simt/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

#include "testing/simt/control.h"
#include "testing/simt/machine.h"
#include "testing/simt/region.h"

namespace redrafter::simt {
namespace {

constexpr size_t kGuardBytes = 256, kAlignment = 256;
// New memory is a private mapping of a file of poison: pages that are never written cost nothing.
constexpr size_t kPatternBytes = size_t{16} << 20;

struct Allocation {
  char* mapped;
  size_t mapped_bytes, bytes;
};
std::map<char*, Allocation> allocations;  // by the address handed out
size_t all_bytes = 0, most_bytes = 0;     // of allocations, and the most since somebody asked

int pattern_file() {
  static const int file = [] {
    const int fd = memfd_create("poison", MFD_CLOEXEC);
    if (fd < 0) return fd;
    const std::vector<uint32_t> words(kPatternBytes / sizeof(uint32_t), kPoison);
    size_t written = 0;
    while (written < kPatternBytes) {
      const ssize_t n =
          write(fd, reinterpret_cast<const char*>(words.data()) + written, kPatternBytes - written);
      if (n <= 0) return -1;
      written += static_cast<size_t>(n);
    }
    return fd;
  }();
  return file;
}

char* map_pattern(size_t bytes) {
  if (pattern_file() < 0) return nullptr;
  void* memory = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(memory);
  for (size_t at = 0; at < bytes; at += kPatternBytes) {
    if (mmap(begin + at, std::min(kPatternBytes, bytes - at), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, pattern_file(), 0) == MAP_FAILED) {
      munmap(begin, bytes);
      return nullptr;
    }
  }
  return begin;
}

bool poisoned(const char* from, const char* to) {
  for (const char* at = from; at < to; ++at) {
    const auto expected = static_cast<char>(kPoison >> (reinterpret_cast<uintptr_t>(at) % 4 * 8));
    if (*at != expected) return false;
  }
  return true;
}

std::string name(size_t bytes) { return "an allocation of " + std::to_string(bytes) + " bytes"; }

// The allocation that holds the bytes, or null.
const Allocation* allocation_around(const void* address, size_t bytes) {
  char* at = static_cast<char*>(const_cast<void*>(address));
  auto found = allocations.upper_bound(at);
  if (found == allocations.begin()) return nullptr;
  --found;
  const size_t offset = static_cast<size_t>(at - found->first);
  const size_t size = found->second.bytes;
  return offset <= size && bytes <= size - offset ? &found->second : nullptr;
}

}  // namespace

void* allocate_memory(size_t bytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (bytes > size_t{1} << 46) return nullptr;
  const size_t mapped_bytes = (kAlignment + bytes + kGuardBytes + page - 1) / page * page;
  char* mapped = map_pattern(mapped_bytes);
  if (mapped == nullptr) return nullptr;
  const std::lock_guard<std::mutex> lock(machine.one_launch);
  allocations[mapped + kAlignment] = {mapped, mapped_bytes, bytes};
  all_bytes += bytes;
  most_bytes = std::max(most_bytes, all_bytes);
  add_region(mapped + kAlignment, bytes, name(bytes), bytes);
  return mapped + kAlignment;
}

bool free_memory(void* memory) {
  const std::lock_guard<std::mutex> lock(machine.one_launch);
  const auto found = allocations.find(static_cast<char*>(memory));
  if (found == allocations.end()) return false;
  remove_region(memory, found->second.bytes);
  all_bytes -= found->second.bytes;
  munmap(found->second.mapped, found->second.mapped_bytes);
  allocations.erase(found);
  return true;
}

bool in_memory(const void* address, size_t bytes) {
  const std::lock_guard<std::mutex> lock(machine.one_launch);
  return allocation_around(address, bytes) != nullptr;
}

std::string broken_guard() {
  for (const auto& [begin, allocation] : allocations) {
    const bool before = !poisoned(begin - kGuardBytes, begin);
    const char* end = begin + allocation.bytes;
    if (before || !poisoned(end, end + kGuardBytes))
      return std::string("wrote ") + (before ? "before " : "after ") + name(allocation.bytes);
  }
  return "";
}

size_t allocated_bytes() {
  const std::lock_guard<std::mutex> lock(machine.one_launch);
  return all_bytes;
}

size_t most_allocated_bytes() {
  const std::lock_guard<std::mutex> lock(machine.one_launch);
  return std::exchange(most_bytes, all_bytes);
}

void forbid(const void* memory, size_t bytes) {
  const std::lock_guard<std::mutex> lock(machine.one_launch);
  remove_region(memory, bytes);
}

}  // namespace redrafter::simt
