// What tests say to the emulator.
#pragma once

#include <cstddef>
#include <cstdint>

namespace redrafter::simt {

// Where the orders of blocks and threads, and the moments of asynchronous copies, are drawn from.
void set_seed(uint64_t seed);

}  // namespace redrafter::simt
