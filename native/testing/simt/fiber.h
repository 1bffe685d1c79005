// Stacks of their own for the threads of a block, and switching between them: a few instructions on x86-64
// and arm64, ucontext elsewhere. AddressSanitizer is told of every switch.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(REDRAFTER_SIMT_UCONTEXT)
#define REDRAFTER_SIMT_UCONTEXT
#endif
#if defined(REDRAFTER_SIMT_UCONTEXT)
#include <ucontext.h>
#endif

namespace redrafter::simt {

struct Fiber {
#if defined(REDRAFTER_SIMT_UCONTEXT)
  ucontext_t context;
#else
  void* stack_pointer = nullptr;
#endif
  char* stack = nullptr;  // null for the stack the launch came on
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // of AddressSanitizer
};

constexpr size_t kStackBytes = 128 * 1024, kStackGuardBytes = 64 * 1024;

// All stacks lie together: from fiber_stacks, once there is one, on.
extern char* fiber_stacks;
constexpr size_t kAllStackBytes = 1024 * (kStackBytes + kStackGuardBytes);
// The stack number `index` of the process, made when first asked for; below it lies a page that faults. Null
// when there is no memory.
char* fiber_stack(int index);

// Makes a switch to `fiber` call entry(), which never returns. `index` spreads the stacks over the cache.
void prepare_fiber(Fiber& fiber, char* stack, int index, void (*entry)());

// Leaves `from` and goes on in `to`. With `ends`, nothing will switch back to `from`.
void switch_fiber(Fiber& from, Fiber& to, bool ends);
// Must be the first thing entry() calls.
void entered_fiber();

}  // namespace redrafter::simt
