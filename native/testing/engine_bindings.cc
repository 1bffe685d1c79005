// The exports of the addon once more, as an object `addon`, with devices that the addon itself does not know:
// those of level_backend that run on the emulator.
#include "testing/levels.h"
#include "testing/testing.h"

namespace redrafter::testing {
namespace {

const Backend* find_emulated(const std::string& device) {
  return is_emulated(device) ? &level_backend(device) : nullptr;
}

}  // namespace

void add_engine(Napi::Env env, Napi::Object exports) {
  find_more_backends(find_emulated);
  exports["addon"] = add_exports(env, Napi::Object::New(env));
}

}  // namespace redrafter::testing
