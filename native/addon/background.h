// Work that would hold up JavaScript, on a thread of its own: libuv's pool is small and belongs to the host.
#pragma once

#include <napi.h>

#include <functional>

namespace redrafter {

// Makes the JavaScript value of a result, on the thread of JavaScript.
using Deliver = std::function<Napi::Value(Napi::Env)>;

// Runs `work` on a new thread and returns a promise: of the value made by what `work` returns, or rejected
// with an Error that carries a `code`. The promise keeps the process alive until then; an environment that
// ends earlier waits for `work`.
Napi::Value in_background(Napi::Env env, std::function<Deliver()> work);

}  // namespace redrafter
