// Atomic operations: threads change places only where they wait, so plain ones do.
#include "testing/simt/check.h"
#include "testing/simt/machine.h"

namespace redrafter::simt {
namespace {

template <typename T, typename Update>
T update(T* address, const char* name, const void* code, const Update& next) {
  if (reinterpret_cast<uintptr_t>(address) % sizeof(T) != 0)
    fail(std::string("misaligned address ") + hex(address) + " in " + name);
  check_access(address, sizeof(T), Access::kAtomic, name, code);
  note_atomic(*machine.current, address);
  const T before = *address;
  *address = next(before);
  return before;
}

}  // namespace
}  // namespace redrafter::simt

using namespace redrafter::simt;

#define CALLER __builtin_return_address(0)

void __threadfence() { note_fence(*machine.current); }
void __threadfence_block() {}

#define REDRAFTER_SIMT_ATOMICS(T)                                                                           \
  T atomicAdd(T* address, T value) {                                                                        \
    return update(address, "atomicAdd", CALLER, [=](T before) {                                             \
      return static_cast<T>(static_cast<uint64_t>(before) + static_cast<uint64_t>(value));                  \
    });                                                                                                     \
  }                                                                                                         \
  T atomicMax(T* address, T value) {                                                                        \
    return update(address, "atomicMax", CALLER, [=](T before) { return before < value ? value : before; }); \
  }                                                                                                         \
  T atomicMin(T* address, T value) {                                                                        \
    return update(address, "atomicMin", CALLER, [=](T before) { return value < before ? value : before; }); \
  }                                                                                                         \
  T atomicExch(T* address, T value) {                                                                       \
    return update(address, "atomicExch", CALLER, [=](T) { return value; });                                 \
  }                                                                                                         \
  T atomicCAS(T* address, T expected, T value) {                                                            \
    return update(address, "atomicCAS", CALLER,                                                             \
                  [=](T before) { return before == expected ? value : before; });                           \
  }                                                                                                         \
  T atomicOr(T* address, T value) {                                                                         \
    return update(address, "atomicOr", CALLER, [=](T before) { return before | value; });                   \
  }                                                                                                         \
  T atomicAnd(T* address, T value) {                                                                        \
    return update(address, "atomicAnd", CALLER, [=](T before) { return before & value; });                  \
  }
REDRAFTER_SIMT_ATOMICS(int)
REDRAFTER_SIMT_ATOMICS(unsigned)
REDRAFTER_SIMT_ATOMICS(unsigned long long)

unsigned atomicSub(unsigned* address, unsigned value) {
  return update(address, "atomicSub", CALLER, [=](unsigned before) { return before - value; });
}
unsigned atomicInc(unsigned* address, unsigned limit) {
  return update(address, "atomicInc", CALLER,
                [=](unsigned before) { return before >= limit ? 0 : before + 1; });
}
float atomicAdd(float* address, float value) {
  return update(address, "atomicAdd", CALLER, [=](float before) { return before + value; });
}
float atomicExch(float* address, float value) {
  return update(address, "atomicExch", CALLER, [=](float) { return value; });
}
