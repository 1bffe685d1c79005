// Exports of the addon; lib/native.ts gives every one its type.
#include "addon/background.h"
#include "addon/convert.h"
#include "addon/engine_object.h"
#include "engine/backends.h"
#include "engine/engine.h"
#include "engine/estimate.h"

namespace redrafter {
namespace {

Napi::Value get_backends(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::vector<BackendStatus> all = list_backends();
  Napi::Array array = Napi::Array::New(env, all.size());
  for (uint32_t i = 0; i < all.size(); ++i) {
    Napi::Object o = Napi::Object::New(env);
    o.Set("device", all[i].device);
    o.Set("backend", all[i].backend);
    o.Set("level", all[i].level.empty() ? env.Null() : Napi::String::New(env, all[i].level));
    o.Set("available", all[i].reason.code == nullptr);
    o.Set("selected", all[i].selected);
    o.Set("reason", from_reason(env, all[i].reason));
    array.Set(i, o);
  }
  return array;
}

Napi::Value estimate(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    REDRAFTER_REQUIRE(info[0].IsObject(), "ERR_INVALID_ARGUMENT", "estimateMemory takes options");
    return in_background(info.Env(), [options = to_engine_options(info[0].As<Napi::Object>())]() -> Deliver {
      const MemoryUse use = estimate_memory(options);
      return [use](Napi::Env env) { return from_memory(env, use); };
    });
  });
}

// May block: not for a thread that has other things to do.
Napi::Value next_masks(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const auto exchange = MaskExchange::find(to_int(info[0]));
    const auto patience = std::chrono::milliseconds(to_int(info[2]));
    if (exchange == nullptr) return from_ids(info.Env(), {-1});
    return from_ids(info.Env(), exchange->next(to_ids(info[1]), patience));
  });
}

Napi::Value features(const Napi::CallbackInfo& info) { return array_of(info.Env(), cpu_features()); }

}  // namespace

Napi::Object add_exports(Napi::Env env, Napi::Object exports) {
  exports.Set("Engine", EngineObject::define(env));
  exports.Set("inspect", Napi::Function::New(env, inspect, "inspect"));
  exports.Set("estimateMemory", Napi::Function::New(env, estimate, "estimateMemory"));
  exports.Set("getBackends", Napi::Function::New(env, get_backends, "getBackends"));
  exports.Set("cpuFeatures", Napi::Function::New(env, features, "cpuFeatures"));
  exports.Set("nextMasks", Napi::Function::New(env, next_masks, "nextMasks"));
  exports.Set("version", REDRAFTER_VERSION);
  return exports;
}

}  // namespace redrafter
