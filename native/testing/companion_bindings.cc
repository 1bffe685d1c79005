// The CUDA library as this addon finds it beside itself: its state, and single calls of the backend made of
// it.
#include <string>

#include "ops/companion.h"
#include "testing/testing.h"

namespace redrafter::testing {
namespace {

// status(device): { code, message }
Napi::Value status(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Reason found = cuda_status(info[0].ToNumber().Int32Value());
    auto result = Napi::Object::New(info.Env());
    result["code"] = found.code == nullptr ? info.Env().Null() : Napi::String::New(info.Env(), found.code);
    result["message"] = found.message;
    return result;
  });
}

// call(device, name): the level of the backend
Napi::Value call(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Backend& backend = cuda_backend(info[0].ToNumber().Int32Value());
    const std::string name = info[1].ToString().Utf8Value();
    Stream stream;
    int32_t from = 1, to = 0;
    if (name == "allocate") DeviceBuffer(backend, 1000);
    if (name == "upload") backend.upload(&to, &from, sizeof to, stream);
    if (name == "norm") backend.norm(NormParams{}, stream);
    if (name == "rope") backend.rope(RopeParams{}, stream);
    if (name == "openStream") BackendStream(backend, nullptr);
    return Napi::String::New(info.Env(), backend.level);
  });
}

// limitProbe(milliseconds): how long the probe may take, if it has not run yet
void limit_probe(const Napi::CallbackInfo& info) {
  set_probe_patience(std::chrono::milliseconds(info[0].ToNumber().Int64Value()));
}

}  // namespace

void add_companion(Napi::Env env, Napi::Object exports) {
  auto companion = Napi::Object::New(env);
  companion["status"] = Napi::Function::New(env, status);
  companion["limitProbe"] = Napi::Function::New(env, limit_probe);
  companion["call"] = Napi::Function::New(env, call);
  exports["companion"] = companion;
}

}  // namespace redrafter::testing
