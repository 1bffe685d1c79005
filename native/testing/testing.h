// Bindings the tests use to reach native code below the public API. Built beside the addon, never shipped.
#pragma once

#include <napi.h>

#include "addon/convert.h"
#include "base/check.h"

namespace redrafter::testing {

void add_canary(Napi::Env env, Napi::Object exports);     // canary.cc
void add_companion(Napi::Env env, Napi::Object exports);  // companion_bindings.cc
void add_drafter(Napi::Env env, Napi::Object exports);    // drafter_bindings.cc
void add_engine(Napi::Env env, Napi::Object exports);     // engine_bindings.cc
void add_faults(Napi::Env env, Napi::Object exports);     // fault_bindings.cc
void add_io(Napi::Env env, Napi::Object exports);         // io_bindings.cc
void add_measure(Napi::Env env, Napi::Object exports);    // measure_bindings.cc
void add_planner(Napi::Env env, Napi::Object exports);    // planner_bindings.cc
void add_ops(Napi::Env env, Napi::Object exports);        // ops_bindings.cc
void add_scheduler(Napi::Env env, Napi::Object exports);  // scheduler_bindings.cc
#if defined(REDRAFTER_HAS_SIMT)
void add_simt(Napi::Env env, Napi::Object exports);  // simt_bindings.cc
#endif

}  // namespace redrafter::testing
