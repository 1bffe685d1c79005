// The exports of the addon once more, as an object `addon`, with devices that the addon itself does not know:
// those of level_backend that are only for tests.
#include "testing/levels.h"
#include "testing/testing.h"

namespace redrafter::testing {
namespace {

const Backend* find_for_tests(const std::string& device) {
  return is_only_for_tests(device) ? &level_backend(device) : nullptr;
}

}  // namespace

void add_engine(Napi::Env env, Napi::Object exports) {
  find_more_backends(find_for_tests);
  exports["addon"] = add_exports(env, Napi::Object::New(env));
  exports["failingCpuMemory"] = Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(failing_cpu_memory()));
  });
}

}  // namespace redrafter::testing
