#include "addon/engine_object.h"

#include "addon/convert.h"

namespace redrafter {

Napi::Function EngineObject::define(Napi::Env env) {
  return DefineClass(env, "Engine",
                     {
                         InstanceMethod<&EngineObject::open_session>("openSession"),
                         InstanceMethod<&EngineObject::fork_session>("forkSession"),
                         InstanceMethod<&EngineObject::rewind_session>("rewindSession"),
                         InstanceMethod<&EngineObject::append>("append"),
                         InstanceMethod<&EngineObject::generate>("generate"),
                         InstanceMethod<&EngineObject::abort>("abort"),
                         InstanceMethod<&EngineObject::close_session>("closeSession"),
                         InstanceMethod<&EngineObject::save_session>("saveSession"),
                         InstanceMethod<&EngineObject::restore_session>("restoreSession"),
                         InstanceMethod<&EngineObject::read_kv>("readKv"),
                         InstanceMethod<&EngineObject::kv_usage>("kvUsage"),
                         InstanceMethod<&EngineObject::close>("close"),
                         InstanceMethod<&EngineObject::ref>("ref"),
                         InstanceMethod<&EngineObject::unref>("unref"),
                     });
}

EngineObject::EngineObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineObject>(info) {
  const Napi::Env env = info.Env();
  guarded(env, [&] {
    REDRAFTER_REQUIRE(info.Length() == 2 && info[0].IsObject() && info[1].IsFunction(),
                      "ERR_INVALID_ARGUMENT", "Engine takes options and a function");
    EngineOptions options = to_engine_options(info[0].As<Napi::Object>());
    auto target = std::make_unique<WakeTarget>(WakeTarget{this});
    wake_ = Wake::New(env, info[1].As<Napi::Function>(), "redrafter", 0, 1, target.get(),
                      [](Napi::Env, void*, WakeTarget* done) { delete done; });
    target_ = target.release();
    try {
      engine_ = std::make_unique<Engine>(std::move(options), [this] { wake_.NonBlockingCall(); });
    } catch (...) {  // no thread could be started
      let_go();
      throw;
    }
    // Hooks run last in, first out: this one before that of the thread-safe function, so that the thread has
    // ended before there is nothing left to call.
    napi_add_env_cleanup_hook(env, on_environment_exit, this);
    hooked_ = true;
    Ref();  // until the thread has ended: joining it here must never mean waiting for it
  });
}

EngineObject::~EngineObject() { stop(); }

// A worker or the process ends: the thread is stopped, which takes at most a round or a slice of loading, and
// joined. process.exit() on the main thread runs no hooks and ends all threads where they are.
void EngineObject::on_environment_exit(void* self) {
  auto* object = static_cast<EngineObject*>(self);
  object->hooked_ = false;
  object->stop();
}

// Joins the thread before the function it would call is let go. Idempotent.
void EngineObject::stop() {
  if (hooked_) {
    napi_remove_env_cleanup_hook(Env(), on_environment_exit, this);
    hooked_ = false;
  }
  if (engine_ == nullptr) return;
  engine_.reset();
  let_go();
}

void EngineObject::let_go() {
  target_->object = nullptr;
  target_ = nullptr;  // its owner, the thread-safe function, may still make a call that was queued
  wake_.Release();
}

// One call per round at most: messages that came since the last one are all taken here. In an environment
// that is going away there is nobody to hear them.
void EngineObject::drain(Napi::Env env, Napi::Function on_messages, WakeTarget* target, void*) {
  if (env == nullptr || target->object == nullptr) return;
  EngineObject* self = target->object;
  const Napi::HandleScope scope(env);
  try {
    guarded(env, [&] { self->deliver(env, on_messages); });
  } catch (const Napi::Error& error) {
    // Left pending it would be swallowed: below version 10, Node-API reports nothing that is thrown here.
    // When the environment is going away this call fails too, and rightly changes nothing.
    napi_fatal_exception(env, error.Value());
  }
}

void EngineObject::deliver(Napi::Env env, const Napi::Function& on_messages) {
  const std::vector<Message> messages = engine_->take_messages();
  if (messages.empty()) return;
  Napi::Array array = Napi::Array::New(env, messages.size());
  for (uint32_t i = 0; i < messages.size(); ++i) array.Set(i, from_message(env, messages[i]));
  if (messages.back().type == MessageType::kClosed) {
    stop();
    Unref();
  }
  on_messages.Call({array});  // may end the model, the worker or the process
}

void EngineObject::submit(const Napi::CallbackInfo& info, Command command) {
  guarded(info.Env(), [&] {
    REDRAFTER_REQUIRE(engine_ != nullptr, "ERR_DISPOSED", "the model was disposed");
    engine_->submit(std::move(command));
  });
}

void EngineObject::submit_for_session(const Napi::CallbackInfo& info, CommandType type) {
  submit(info,
         guarded(info.Env(), [&] { return Command{type, to_int(info[0]), to_int(info[1]), 0, {}, {}}; }));
}

void EngineObject::open_session(const Napi::CallbackInfo& info) {
  submit_for_session(info, CommandType::kOpen);
}
void EngineObject::close_session(const Napi::CallbackInfo& info) {
  submit_for_session(info, CommandType::kClose);
}
void EngineObject::read_kv(const Napi::CallbackInfo& info) { submit_for_session(info, CommandType::kReadKv); }

void EngineObject::fork_session(const Napi::CallbackInfo& info) {
  submit(info, guarded(info.Env(), [&] {
           return Command{CommandType::kFork, to_int(info[0]), to_int(info[1]), to_int(info[2]), {}, {}};
         }));
}

void EngineObject::rewind_session(const Napi::CallbackInfo& info) {
  submit(info, guarded(info.Env(), [&] {
           return Command{CommandType::kRewind, to_int(info[0]), to_int(info[1]), to_int(info[2]), {}, {}};
         }));
}

void EngineObject::append(const Napi::CallbackInfo& info) {
  submit(info, guarded(info.Env(), [&] {
           return Command{CommandType::kAppend, to_int(info[0]), to_int(info[1]), 0, to_ids(info[2]), {}};
         }));
}

void EngineObject::generate(const Napi::CallbackInfo& info) {
  submit(info, guarded(info.Env(), [&] {
           REDRAFTER_REQUIRE(info[3].IsObject(), "ERR_INVALID_ARGUMENT", "generate takes options");
           return Command{CommandType::kGenerate, to_int(info[0]),
                          to_int(info[1]),        0,
                          to_ids(info[2]),        to_generate_options(info[3].As<Napi::Object>())};
         }));
}

void EngineObject::abort(const Napi::CallbackInfo& info) {
  if (engine_ == nullptr) return;
  submit(info, guarded(info.Env(), [&] {
           return Command{CommandType::kAbort, to_int(info[0]), 0, to_int(info[1]), {}, {}};
         }));
}

void EngineObject::submit_path(const Napi::CallbackInfo& info, CommandType type) {
  submit(info, guarded(info.Env(), [&] {
           Command command{type, to_int(info[0]), to_int(info[1]), 0, {}, {}};
           command.path = to_text(info[2]);
           return command;
         }));
}

void EngineObject::save_session(const Napi::CallbackInfo& info) { submit_path(info, CommandType::kSave); }

void EngineObject::restore_session(const Napi::CallbackInfo& info) {
  submit_path(info, CommandType::kRestore);
}

Napi::Value EngineObject::kv_usage(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    REDRAFTER_REQUIRE(engine_ != nullptr, "ERR_DISPOSED", "the model was disposed");
    return from_usage(info.Env(), engine_->usage());
  });
}

void EngineObject::close(const Napi::CallbackInfo&) {
  if (engine_ != nullptr) engine_->close();
}

void EngineObject::ref(const Napi::CallbackInfo& info) {
  if (engine_ != nullptr) wake_.Ref(info.Env());
}

void EngineObject::unref(const Napi::CallbackInfo& info) {
  if (engine_ != nullptr) wake_.Unref(info.Env());
}

}  // namespace redrafter
