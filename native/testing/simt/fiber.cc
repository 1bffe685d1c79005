#include "testing/simt/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// switch(save, to): saves the registers a function must keep on the stack, and the stack pointer in *save;
// goes on with those of `to`.
#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.globl redrafter_simt_switch
.hidden redrafter_simt_switch
.type redrafter_simt_switch, @function
redrafter_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size redrafter_simt_switch, .-redrafter_simt_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.p2align 4
.globl redrafter_simt_switch
.hidden redrafter_simt_switch
.type redrafter_simt_switch, %function
redrafter_simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size redrafter_simt_switch, .-redrafter_simt_switch
)");
#endif
#if !defined(REDRAFTER_SIMT_UCONTEXT)
extern "C" void redrafter_simt_switch(void** save, void* to);
#endif

namespace redrafter::simt {
namespace {

#if defined(__SANITIZE_ADDRESS__)
Fiber *leaving = nullptr, *entering = nullptr;  // of the switch under way
#endif

}  // namespace

char* fiber_stacks = nullptr;

char* fiber_stack(int index) {
  static int usable = 0;
  if (fiber_stacks == nullptr) {
    void* memory =
        mmap(nullptr, kAllStackBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    fiber_stacks = static_cast<char*>(memory);
  }
  const auto stack = [](int number) {
    return fiber_stacks + static_cast<size_t>(number) * (kStackBytes + kStackGuardBytes) + kStackGuardBytes;
  };
  for (; usable <= index; ++usable) {
    if (mprotect(stack(usable), kStackBytes, PROT_READ | PROT_WRITE) != 0) return nullptr;
  }
  return stack(index);
}

void prepare_fiber(Fiber& fiber, char* stack, int index, void (*entry)()) {
  fiber.stack = stack;
  fiber.stack_bytes = kStackBytes;
  fiber.fake_stack = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(stack, kStackBytes);  // frames of an abandoned fiber
#endif
  // Stacks lie a multiple of the page size apart: without this their tops would share a few lines of the
  // cache.
  const size_t skip = static_cast<size_t>(index % 61) * 64;
#if defined(REDRAFTER_SIMT_UCONTEXT)
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = kStackBytes - skip;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#else
  // What the switch takes off the stack: zeros for the registers, and where it returns to.
#if defined(__x86_64__)
  constexpr size_t kWords = 8, kReturn = 6;  // one word above the return address, as after a call
#else
  constexpr size_t kWords = 20, kReturn = 11;
#endif
  auto* frame = reinterpret_cast<uintptr_t*>(stack + kStackBytes - skip) - kWords;
  std::memset(frame, 0, kWords * sizeof *frame);
  frame[kReturn] = reinterpret_cast<uintptr_t>(entry);
  fiber.stack_pointer = frame;
#endif
}

void entered_fiber() {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(entering->fake_stack, &bottom, &bytes);
  if (leaving->stack == nullptr) {  // the stack the launch came on: its bounds are needed on the way back
    leaving->stack = static_cast<char*>(const_cast<void*>(bottom));
    leaving->stack_bytes = bytes;
  }
#endif
}

void switch_fiber(Fiber& from, Fiber& to, bool ends) {
#if defined(__SANITIZE_ADDRESS__)
  leaving = &from, entering = &to;
  __sanitizer_start_switch_fiber(ends ? nullptr : &from.fake_stack, to.stack, to.stack_bytes);
#else
  (void)ends;
#endif
#if defined(REDRAFTER_SIMT_UCONTEXT)
  swapcontext(&from.context, &to.context);
#else
  redrafter_simt_switch(&from.stack_pointer, to.stack_pointer);
#endif
  entered_fiber();
}

}  // namespace redrafter::simt
