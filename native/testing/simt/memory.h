// Device memory: the registered allocations.
#pragma once

#include <cstddef>
#include <string>

namespace redrafter::simt {

void* allocate_memory(size_t bytes);  // null without memory
bool free_memory(void* memory);       // false when it is no allocation
// Whether the bytes lie in one allocation.
bool in_memory(const void* address, size_t bytes);
// The first allocation beside which something was written, for people; empty when there is none.
std::string broken_guard();

}  // namespace redrafter::simt
