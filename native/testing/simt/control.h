// What tests say to the emulator.
#pragma once

#include <cstddef>
#include <cstdint>

namespace redrafter {
struct Stream;
}

namespace redrafter::simt {

// Where the orders of blocks and threads, and the moments of asynchronous copies, are drawn from.
void set_seed(uint64_t seed);

// Graphs that were launched and made since the process began, and those there are now.
uint64_t graph_launches();
uint64_t graph_captures();
uint64_t graphs_alive();

// From now on the stream does everything as late as CUDA may do it: when it is waited for, when it is closed,
// and when memory of the device is freed. Until then nothing is where a copy would put it.
void make_late(Stream& stream);
// How often memory of the host was freed before a copy from or to it, since the process began.
uint64_t freed_early();

// Whether this build can check what kernels do with memory, and switching that off and on; see check.h. It is
// on at first.
bool can_check();
void set_checking(bool on);

// Of all allocations there are, and of those of host memory.
size_t allocated_bytes();
// The most there was of allocated_bytes() since this was last asked.
size_t most_allocated_bytes();
size_t host_bytes();

// Device memory that no kernel may touch, though it is part of an allocation. A freed allocation is
// forgotten.
void forbid(const void* memory, size_t bytes);

}  // namespace redrafter::simt
