#include "addon/engine_object.h"

#include <utility>

#include "addon/convert.h"

namespace redrafter {

Napi::Function EngineObject::define(Napi::Env env) {
  return DefineClass(env, "Engine",
                     {
                         InstanceMethod<&EngineObject::command<CommandType::kOpen>>("openSession"),
                         InstanceMethod<&EngineObject::command<CommandType::kFork>>("forkSession"),
                         InstanceMethod<&EngineObject::command<CommandType::kRewind>>("rewindSession"),
                         InstanceMethod<&EngineObject::command<CommandType::kAppend>>("append"),
                         InstanceMethod<&EngineObject::generate>("generate"),
                         InstanceMethod<&EngineObject::note<CommandType::kAbort>>("abort"),
                         InstanceMethod<&EngineObject::note<CommandType::kRead>>("read"),
                         InstanceMethod<&EngineObject::command<CommandType::kClose>>("closeSession"),
                         InstanceMethod<&EngineObject::command<CommandType::kSave>>("saveSession"),
                         InstanceMethod<&EngineObject::command<CommandType::kRestore>>("restoreSession"),
                         InstanceMethod<&EngineObject::command<CommandType::kClearPrefixes>>("clearPrefixes"),
                         InstanceMethod<&EngineObject::command<CommandType::kReadKv>>("readKv"),
                         InstanceMethod<&EngineObject::usage>("usage"),
                         InstanceMethod<&EngineObject::mask_exchange>("maskExchange"),
                         InstanceMethod<&EngineObject::fail_masks>("failMasks"),
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

// Every command begins with its ticket and its session; `fill` reads the arguments that follow.
template <typename Fill>
void EngineObject::submit(const Napi::CallbackInfo& info, CommandType type, const Fill& fill) {
  guarded(info.Env(), [&] {
    REDRAFTER_REQUIRE(engine_ != nullptr, "ERR_DISPOSED", "the model was disposed");
    Command command{type, to_int(info[0]), to_int(info[1])};
    fill(command);
    engine_->submit(std::move(command));
  });
}

template <CommandType type>
void EngineObject::command(const Napi::CallbackInfo& info) {
  submit(info, type, [&](Command& c) {
    if (type == CommandType::kFork || type == CommandType::kRewind) c.value = to_int(info[2]);
    if (type == CommandType::kRewind) c.ids = to_ids(info[3]);
    if (type == CommandType::kAppend) c.ids = to_ids(info[2]);
    c.text = to_text(info[2]);
  });
}

void EngineObject::generate(const Napi::CallbackInfo& info) {
  submit(info, CommandType::kGenerate, [&](Command& c) {
    REDRAFTER_REQUIRE(info[3].IsObject(), "ERR_INVALID_ARGUMENT", "generate takes options");
    const auto options = info[3].As<Napi::Object>();
    c.ids = to_ids(info[2]);
    c.value = to_int(options.Get("keepTokens"));
    c.generate = to_generate_options(options);
  });
}

template <CommandType type>
void EngineObject::note(const Napi::CallbackInfo& info) {
  if (engine_ == nullptr) return;
  submit(info, type, [](Command& c) { c.value = std::exchange(c.session, 0); });
}

Napi::Value EngineObject::mask_exchange(const Napi::CallbackInfo& info) {
  const auto number = engine_ == nullptr ? 0 : engine_->masks().number();
  return Napi::Number::New(info.Env(), static_cast<double>(number));
}

void EngineObject::fail_masks(const Napi::CallbackInfo& info) {
  if (engine_ != nullptr) engine_->masks().fail(to_text(info[0]));
}

Napi::Value EngineObject::usage(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    REDRAFTER_REQUIRE(engine_ != nullptr, "ERR_DISPOSED", "the model was disposed");
    return from_usage(info.Env(), engine_->usage(), to_int(info[0]));
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
