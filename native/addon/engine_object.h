// The JavaScript face of an Engine: copies arguments into commands, messages into objects. It lives until the
// engine's thread has ended, whether or not JavaScript still holds it: whoever makes one calls close().
#pragma once

#include <napi.h>

#include <memory>

#include "engine/engine.h"

namespace redrafter {

class EngineObject : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit EngineObject(const Napi::CallbackInfo& info);
  ~EngineObject() override;

 private:
  template <CommandType type>
  void command(const Napi::CallbackInfo& info);
  void generate(const Napi::CallbackInfo& info);
  template <CommandType type>
  void note(const Napi::CallbackInfo& info);  // about a ticket, as long as there is an engine
  Napi::Value usage(const Napi::CallbackInfo& info);
  Napi::Value mask_exchange(const Napi::CallbackInfo& info);
  void fail_masks(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);
  void ref(const Napi::CallbackInfo& info);
  void unref(const Napi::CallbackInfo& info);

  template <typename Fill>
  void submit(const Napi::CallbackInfo& info, CommandType type, const Fill& fill);
  // What the thread-safe function points to, and frees as the last thing it does: it may outlive the object.
  struct WakeTarget {
    EngineObject* object;  // null once the engine is gone
  };

  void stop();
  void let_go();
  void deliver(Napi::Env env, const Napi::Function& on_messages);
  static void drain(Napi::Env env, Napi::Function on_messages, WakeTarget* target, void*);
  static void on_environment_exit(void* self);

  using Wake = Napi::TypedThreadSafeFunction<WakeTarget, void, &EngineObject::drain>;
  Wake wake_;
  WakeTarget* target_ = nullptr;
  std::unique_ptr<Engine> engine_;
  bool hooked_ = false;
};

}  // namespace redrafter
