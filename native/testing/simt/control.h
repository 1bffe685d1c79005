// What tests say to the emulator.
#pragma once

#include <cstddef>
#include <cstdint>

namespace redrafter::simt {

// Where the orders of blocks and threads, and the moments of asynchronous copies, are drawn from.
void set_seed(uint64_t seed);

// Graphs that were run since the process began; what went wrong in the last one of this thread that failed.
uint64_t graph_launches();
const char* graph_fault();

// Whether this build can check what kernels do with memory, and switching that off and on; see check.h. It is
// on at first.
bool can_check();
void set_checking(bool on);

// Of all allocations there are.
size_t allocated_bytes();

// Device memory that no kernel may touch, though it is part of an allocation. A freed allocation is
// forgotten.
void forbid(const void* memory, size_t bytes);

}  // namespace redrafter::simt
