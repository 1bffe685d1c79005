// Bindings the tests use to reach native code below the public API. Built beside the addon, never shipped.
#pragma once

#include <napi.h>

#include "base/check.h"

namespace redrafter::testing {

void add_canary(Napi::Env env, Napi::Object exports);   // canary.cc
void add_drafter(Napi::Env env, Napi::Object exports);  // drafter_bindings.cc
void add_faults(Napi::Env env, Napi::Object exports);   // fault_bindings.cc
void add_io(Napi::Env env, Napi::Object exports);       // io_bindings.cc
void add_ops(Napi::Env env, Napi::Object exports);      // ops_bindings.cc

// Runs body; an Error becomes a JavaScript Error with the same `code`.
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

}  // namespace redrafter::testing
