// JavaScript values to plain structs and back. Only this folder includes napi.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "base/check.h"
#include "engine/messages.h"

namespace redrafter {

inline Napi::Error js_error(Napi::Env env, const char* code, const char* message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

// Runs body; what it throws becomes a JavaScript Error that carries a `code`.
template <typename Body>
auto guarded(Napi::Env env, const Body& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception&) {
    const Error error = caught_error();
    throw js_error(env, error.code(), error.what());
  }
}

EngineOptions to_engine_options(const Napi::Object& options);
GenerateOptions to_generate_options(const Napi::Object& options);
std::vector<int32_t> to_ids(const Napi::Value& value);
int64_t to_int(const Napi::Value& value);
std::string to_text(const Napi::Value& value);  // empty for what is no string

Napi::Object from_message(Napi::Env env, const Message& message);
Napi::Object from_memory(Napi::Env env, const MemoryUse& use);
Napi::Value from_reason(Napi::Env env, const Reason& reason);  // null without a code
Napi::Object from_usage(Napi::Env env, const EngineUsage& usage, int64_t session);

Napi::Value inspect(const Napi::CallbackInfo& info);            // inspect.cc
Napi::Object add_exports(Napi::Env env, Napi::Object exports);  // exports.cc: all there are

}  // namespace redrafter
