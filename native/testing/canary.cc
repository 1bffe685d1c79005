// Faults that a sanitizer must catch; scripts/sanitize.mjs calls them to prove that it is on. Volatile, or
// the optimiser removes the very access that is wrong. Present in sanitized builds only.
#include <climits>

#include "testing/testing.h"

namespace redrafter::testing {

#if defined(__SANITIZE_ADDRESS__)
namespace {

Napi::Value heap_overflow(const Napi::CallbackInfo& info) {
  // A volatile pointer hides the size of the block: the access itself must be what is caught.
  int* volatile block = new int[4];
  volatile int index = 4;
  const_cast<volatile int*>(block)[index] = 1;
  delete[] block;
  return info.Env().Undefined();
}

Napi::Value signed_overflow(const Napi::CallbackInfo& info) {
  volatile int value = INT_MAX;
  value = value + 1;
  return Napi::Number::New(info.Env(), value);
}

}  // namespace

void add_canary(Napi::Env env, Napi::Object exports) {
  Napi::Object canary = Napi::Object::New(env);
  canary.Set("heapOverflow", Napi::Function::New(env, heap_overflow));
  canary.Set("signedOverflow", Napi::Function::New(env, signed_overflow));
  exports.Set("canary", canary);
}
#else
void add_canary(Napi::Env, Napi::Object) {}
#endif

}  // namespace redrafter::testing
