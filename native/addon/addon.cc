// Exports of the addon; lib/native.ts gives every one its type.
#include "addon/convert.h"
#include "addon/engine_object.h"
#include "engine/backends.h"

namespace redrafter {
namespace {

Napi::Value backends(const Napi::CallbackInfo& info) {
  const std::vector<BackendStatus> all = list_backends();
  Napi::Array array = Napi::Array::New(info.Env(), all.size());
  for (uint32_t i = 0; i < all.size(); ++i) {
    Napi::Object o = Napi::Object::New(info.Env());
    o.Set("name", all[i].name);
    o.Set("available", all[i].available);
    o.Set("reason", all[i].reason);
    array.Set(i, o);
  }
  return array;
}

Napi::Value features(const Napi::CallbackInfo& info) {
  const std::vector<std::string> all = cpu_features();
  Napi::Array array = Napi::Array::New(info.Env(), all.size());
  for (uint32_t i = 0; i < all.size(); ++i) array.Set(i, all[i]);
  return array;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("Engine", EngineObject::define(env));
  exports.Set("inspect", Napi::Function::New(env, inspect, "inspect"));
  exports.Set("backends", Napi::Function::New(env, backends, "backends"));
  exports.Set("cpuFeatures", Napi::Function::New(env, features, "cpuFeatures"));
  exports.Set("version", REDRAFTER_VERSION);
  return exports;
}

}  // namespace
}  // namespace redrafter

static Napi::Object initialise(Napi::Env env, Napi::Object exports) { return redrafter::init(env, exports); }

NODE_API_MODULE(redrafter, initialise)
