// Which accesses of earlier blocks of a launch the block that runs may rely on.
#pragma once

#include <cstddef>
#include <cstdint>

namespace redrafter::simt {

struct Thread;

void begin_launch_order();
void begin_block_order(uint64_t start);
void release(const Thread& thread, const void* address);  // what the block has made visible so far
void acquire(const Thread& thread, const void* address);  // what others have, once the thread fences
void finish_acquire(const Thread& thread);                // it fences
// Whether an access of an earlier block, at `time` by the thread number `by` of it, is ordered before
// `thread` now.
bool ordered_before(uint64_t time, int by, const Thread& thread);
// Whether the block that runs has acquired anything.
bool ordered_after_some_block();
// The earlier block that ran at `time`, as its place in the order of blocks.
size_t block_at(uint64_t time);

}  // namespace redrafter::simt
