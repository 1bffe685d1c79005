// The checker: every access of a kernel to memory, as compute-sanitizer's memcheck and racecheck see it.
//
// Memory: an access lies in an allocation (less what tests forbid), the shared memory of the block, the
// thread's own stack, or, for reading, the parameters of the launch or the module's constants.
//
// Races: two accesses to a byte, at least one of them a write, by different threads, and nothing that orders
// them:
//   - in a block, a block barrier between them; in a warp, a __syncwarp. Shuffles, votes and matrix
//   instructions
//     order no memory.
//   - between blocks of a launch: writes, __threadfence, an atomic operation in the one; an atomic operation
//   on the
//     same address later, __threadfence, accesses in the other. Barriers may lie between these steps: then
//     the fence may be of the thread that wrote or of the one that does the atomic operation, and the
//     accesses of any thread.
//   - atomic operations do not race with each other, and those of one launch follow all of the launch before.
//   - bytes an asynchronous copy writes are its own from its start to the wait that covers it.
// Threads change places only where they wait, so time is a counter of such moments: an access is stamped with
// it, and is ordered before the one that runs when its stamp is older than the barrier they share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace redrafter::simt {

struct Thread;
struct Warp;

enum class Access { kRead, kWrite, kAtomic, kCopyStart, kCopyEnd };

// Whether the hooks are compiled in, and are on.
bool can_check();
extern bool checking;

// An access of the thread that runs. `what` names it in messages; `code` is where it was made, or null.
void check_access(const void* address, size_t bytes, Access access, const char* what,
                  const void* code = nullptr);

// The moments that order accesses.
void note_launch(const void* closure, size_t closure_bytes);
void note_block();
void note_barrier();
void note_warp_barrier(Warp& warp);
void note_fence(Thread& thread);
void note_atomic(Thread& thread, const void* address);  // after check_access

}  // namespace redrafter::simt
