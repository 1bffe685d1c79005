// engine/scheduler.h as an object `scheduler`.
#include <chrono>

#include "engine/scheduler.h"
#include "testing/testing.h"

namespace redrafter::testing {
namespace {

using Info = Napi::CallbackInfo;

int64_t number(const Napi::Object& object, const char* key) { return to_int(object.Get(key)); }

template <typename T, typename Read>
std::vector<T> list(const Napi::Value& value, const Read& read) {
  const auto array = value.As<Napi::Array>();
  std::vector<T> all;
  for (uint32_t i = 0; i < array.Length(); ++i) all.push_back(read(array.Get(i).As<Napi::Object>()));
  return all;
}

// turn(submittedMs, priority): ms
Napi::Value turn(const Info& info) {
  const std::chrono::steady_clock::time_point submitted{std::chrono::milliseconds(to_int(info[0]))};
  const auto since = turn_of(submitted, to_int(info[1])).time_since_epoch();
  return Napi::Number::New(
      info.Env(), static_cast<double>(std::chrono::duration_cast<std::chrono::milliseconds>(since).count()));
}

// nextAdmission([{blocks, generates, overtaken}], freeBlocks, freeHidden): index or -1
Napi::Value next(const Info& info) {
  const auto waiting = list<WaitingRequest>(info[0], [](const Napi::Object& o) {
    return WaitingRequest{number(o, "blocks"), o.Get("generates").ToBoolean(), number(o, "overtaken")};
  });
  return Napi::Number::New(info.Env(),
                           static_cast<double>(next_admission(waiting, to_int(info[1]), to_int(info[2]))));
}

// planRows([{decodes, rows, idleRounds}], {rows, promptChunk}): rows of each
Napi::Value plan(const Info& info) {
  const auto active = list<ActiveRequest>(info[0], [](const Napi::Object& o) {
    return ActiveRequest{o.Get("decodes").ToBoolean(), number(o, "rows"), number(o, "idleRounds")};
  });
  const auto limits = info[1].As<Napi::Object>();
  const auto rows = plan_rows(active, {number(limits, "rows"), number(limits, "promptChunk")});
  Napi::Array array = Napi::Array::New(info.Env(), rows.size());
  for (uint32_t i = 0; i < rows.size(); ++i) array.Set(i, static_cast<double>(rows[i]));
  return array;
}

}  // namespace

void add_scheduler(Napi::Env env, Napi::Object exports) {
  Napi::Object scheduler = Napi::Object::New(env);
  scheduler["turn"] = Napi::Function::New(env, turn);
  scheduler["nextAdmission"] = Napi::Function::New(env, next);
  scheduler["planRows"] = Napi::Function::New(env, plan);
  scheduler["maxOvertakes"] = kMaxOvertakes;
  scheduler["lookAhead"] = kLookAhead;
  scheduler["maxPriority"] = kMaxPriority;
  scheduler["priorityLevelMs"] = kPriorityLevel.count();
  exports["scheduler"] = scheduler;
}

}  // namespace redrafter::testing
