// What tests say to the emulator.
#pragma once

#include <cstddef>
#include <cstdint>

namespace redrafter::simt {

// Where the orders of blocks and threads, and the moments of asynchronous copies, are drawn from.
void set_seed(uint64_t seed);

// Graphs that were launched and made since the process began, and those there are now; what went wrong in the
// last work that a stream of this thread had put off.
uint64_t graph_launches();
uint64_t graph_captures();
uint64_t graphs_alive();
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
