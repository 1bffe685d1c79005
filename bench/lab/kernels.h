// The kernels that the lab has of its own; kernels.cu.
#pragma once

#include "ops/ops.h"

namespace redrafter::lab {

// Of `bytes` bytes, a multiple of 16, by `blocks` blocks. read_bytes writes a word at most.
void copy_bytes(void* to, const void* from, int64_t bytes, int64_t blocks, Stream& stream);
void read_bytes(void* to, const void* from, int64_t bytes, int64_t blocks, Stream& stream);

// Puts another path in place of the one that tree_accept has found with the same parameters, so that on
// average `tokens_per_step` tokens come out of a round, the target's own included. That number and rounds,
// which counts [lanes] of them, are in device memory: graphs of it are launched again and again. Lanes
// without nodes are left alone.
void replace_paths(const TreeAcceptParams& p, const double* tokens_per_step, uint32_t* rounds,
                   Stream& stream);

}  // namespace redrafter::lab
