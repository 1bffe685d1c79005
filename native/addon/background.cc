#include "addon/background.h"

#include <exception>
#include <memory>
#include <thread>

#include "addon/convert.h"

namespace redrafter {
namespace {

// Owns itself: freed by settle() or, when the environment ends before, by its cleanup hook.
class Task {
 public:
  Task(Napi::Env env, std::function<Deliver()> work) : deferred_(env), work_(std::move(work)) {
    done_ = Done::New(env, "redrafter", 0, 1, this);
    try {
      thread_ = std::thread([this] { run(); });
    } catch (...) {
      done_.Release();
      throw;
    }
    // Hooks run last in, first out, so the thread is joined while the function it calls is still there.
    napi_add_env_cleanup_hook(env, on_environment_exit, this);
  }
  ~Task() {
    thread_.join();
    done_.Release();
  }
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;

  Napi::Promise promise() const { return deferred_.Promise(); }

 private:
  void run() {
    try {
      deliver_ = work_();
    } catch (...) {
      error_ = std::current_exception();
    }
    done_.NonBlockingCall();
  }

  static void settle(Napi::Env env, Napi::Function, Task* self, void*) {
    if (env == nullptr) return;  // the environment has ended, and `self` with it
    const std::unique_ptr<Task> task(self);
    napi_remove_env_cleanup_hook(env, on_environment_exit, self);
    const Napi::HandleScope scope(env);
    try {
      task->deferred_.Resolve(guarded(env, [&] {
        if (task->error_ != nullptr) std::rethrow_exception(task->error_);
        return task->deliver_(env);
      }));
    } catch (const Napi::Error& error) {
      task->deferred_.Reject(error.Value());
    }
  }

  static void on_environment_exit(void* self) { delete static_cast<Task*>(self); }

  using Done = Napi::TypedThreadSafeFunction<Task, void, &Task::settle>;
  Napi::Promise::Deferred deferred_;
  std::function<Deliver()> work_;
  Deliver deliver_;
  std::exception_ptr error_;
  Done done_;
  std::thread thread_;
};

}  // namespace

Napi::Value in_background(Napi::Env env, std::function<Deliver()> work) {
  return (new Task(env, std::move(work)))->promise();
}

}  // namespace redrafter
