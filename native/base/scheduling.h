// What threads that compute all the time ask of the operating system.
#pragma once

namespace redrafter {

// For this thread and those it will start: to be interrupted at once when a thread that has little to do
// wakes, in return for longer turns. Its share of the processors, and so its priority, stay as they are.
//
// An event loop beside busy threads on all cores wakes often and briefly. Unless it may interrupt one of
// them, it waits for the end of a turn, which is looked at every 4 ms on many kernels. Linux 6.12 and later
// can do this; elsewhere it does nothing. Beside other programs that compute, longer turns come less often.
void prefer_long_turns() noexcept;

}  // namespace redrafter
