// JavaScript values to plain structs and back. Only this folder includes napi.
#pragma once

#include <napi.h>

#include <initializer_list>
#include <string>
#include <utility>
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
Napi::Value from_ids(Napi::Env env, const std::vector<int32_t>& ids);
int64_t to_int(const Napi::Value& value);
std::string to_text(const Napi::Value& value);  // empty for what is no string

// Numbers as numbers, strings as strings.
template <typename T>
Napi::Array array_of(Napi::Env env, const std::vector<T>& values) {
  Napi::Array array = Napi::Array::New(env, values.size());
  for (uint32_t i = 0; i < values.size(); ++i) array.Set(i, values[i]);
  return array;
}

using Number = std::pair<const char*, double>;
Number number(const char* key, auto value) { return {key, static_cast<double>(value)}; }
Napi::Object set_numbers(Napi::Object o, std::initializer_list<Number> numbers);

Napi::Object from_message(Napi::Env env, const Message& message);
Napi::Object from_memory(Napi::Env env, const MemoryUse& use);
Napi::Value from_reason(Napi::Env env, const Reason& reason);  // null without a code
Napi::Object from_usage(Napi::Env env, const EngineUsage& usage, int64_t session);

Napi::Value inspect(const Napi::CallbackInfo& info);            // inspect.cc
Napi::Object add_exports(Napi::Env env, Napi::Object exports);  // exports.cc: all there are

}  // namespace redrafter
