#include "engine/engine.h"

#include <iterator>
#include <utility>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "base/scheduling.h"
#include "engine/engine_thread.h"

namespace redrafter {
namespace {

// The allocator keeps what a model used for the next one. glibc has to be asked to give it back.
void return_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

}  // namespace

Engine::Engine(EngineOptions options, std::function<void()> wake)
    : options_(std::move(options)),
      wake_(std::move(wake)),
      masks_(MaskExchange::open([this] { nudge(); })),
      thread_([this] { run(); }) {}

Engine::~Engine() {
  close();
  if (thread_.joinable()) thread_.join();
}

void Engine::run() {
  prefer_long_turns();  // the host's event loop need not wait for this thread or those it starts
  try {
    EngineThread(*this).run();
  } catch (const std::exception&) {
    // Out of memory while it answered: the last message answers whatever is open.
  }
  return_memory();
  std::vector<Message> last;
  last.emplace_back(MessageType::kClosed);
  deliver(last);
}

void Engine::submit(Command command) {
  if (command.type == CommandType::kAppend || command.type == CommandType::kGenerate) {
    command.place = queue_.enter(static_cast<int64_t>(command.ids.size()));
  }
  {
    const std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
  }
  changed_.notify_one();
}

void Engine::close() {
  {
    const std::lock_guard lock(mutex_);
    closing_.store(true);
  }
  changed_.notify_one();
  masks_->close();
}

std::vector<Message> Engine::take_messages() {
  const std::lock_guard lock(mutex_);
  return std::exchange(messages_, {});
}

EngineUsage Engine::usage() const {
  const std::lock_guard lock(mutex_);
  EngineUsage usage = usage_;
  usage.queue.waiting_requests = queue_.requests();
  usage.queue.waiting_tokens = queue_.tokens();
  usage.queue.max_requests = queue_.max_requests();
  usage.queue.max_tokens = queue_.max_tokens();
  return usage;
}

std::vector<Command> Engine::take_commands(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  const auto ready = [this] { return !commands_.empty() || nudged_ || closing_.load(); };
  if (patience == std::chrono::milliseconds::max()) {
    changed_.wait(lock, ready);
  } else if (patience.count() > 0) {
    changed_.wait_for(lock, patience, ready);
  }
  nudged_ = false;
  return std::exchange(commands_, {});
}

void Engine::nudge() {
  {
    const std::lock_guard lock(mutex_);
    nudged_ = true;
  }
  changed_.notify_one();
}

void Engine::deliver(std::vector<Message>& messages) {
  if (messages.empty()) return;
  bool first;
  {
    const std::lock_guard lock(mutex_);
    first = messages_.empty();
    // All or none: a part of them left behind by a failure would be messages that nobody is woken for.
    messages_.insert(messages_.end(), std::make_move_iterator(messages.begin()),
                     std::make_move_iterator(messages.end()));
  }
  messages.clear();
  if (first) wake_();
}

}  // namespace redrafter
