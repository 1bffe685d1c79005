// JavaScript values to plain structs and back. Only this folder includes napi.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "base/check.h"
#include "engine/messages.h"

namespace redrafter {

// Runs body; an Error becomes a JavaScript Error that carries its `code`.
template <typename Body>
auto guarded(Napi::Env env, const Body& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Error& error) {
    Napi::Error js = Napi::Error::New(env, error.what());
    js.Set("code", Napi::String::New(env, error.code()));
    throw js;
  }
}

EngineOptions to_engine_options(const Napi::Object& options);
GenerateOptions to_generate_options(const Napi::Object& options);
std::vector<int32_t> to_ids(const Napi::Value& value);
int64_t to_int(const Napi::Value& value);

Napi::Object from_message(Napi::Env env, const Message& message);
Napi::Object from_usage(Napi::Env env, const KvUsage& usage);

Napi::Value inspect(const Napi::CallbackInfo& info);  // inspect.cc

}  // namespace redrafter
