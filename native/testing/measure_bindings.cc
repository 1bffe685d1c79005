// Measuring what rounds cost, abandoned on the way.
#include "base/threads.h"
#include "engine/plan.h"
#include "spec/measure.h"
#include "testing/testing.h"

namespace redrafter::testing {
namespace {

// measure(options of an engine, limitMs, asks): how often it asked whether to go on; the last of `asks` is
// answered with no.
Napi::Value measure(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const LoadPlan plan = plan_load(to_engine_options(info[0].As<Napi::Object>()));
    ThreadPool threads(1);
    BackendStream stream(plan.backend, &threads);
    const LoadedWeights loaded =
        load_weights(plan, plan.backend, stream.get(), [](uint64_t) { return true; });
    KvCache cache(plan.kv, plan.backend, stream.get());
    const int64_t most = to_int(info[2]);
    int64_t asked = 0;
    std::string code;
    try {
      measure_costs(*loaded.model, cache, *loaded.drafter, stream.get(),
                    info[1].As<Napi::Number>().DoubleValue(), [&] { return ++asked < most; });
    } catch (const Error& error) {
      code = error.code();
    }
    auto result = Napi::Object::New(info.Env());
    result["asked"] = static_cast<double>(asked);
    result["code"] = code;
    result["freeBlocks"] = static_cast<double>(cache.free_blocks());
    result["blocks"] = static_cast<double>(cache.shape().blocks);
    return result;
  });
}

}  // namespace

void add_measure(Napi::Env env, Napi::Object exports) {
  exports["measure"] = Napi::Function::New(env, measure);
}

}  // namespace redrafter::testing
