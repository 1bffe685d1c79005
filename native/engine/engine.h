// One model, one thread, one queue. The host submits commands and is woken at most once per round; everything
// it learns comes as messages. Nothing here knows who the host is.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/messages.h"
#include "spec/mask_exchange.h"

namespace redrafter {

class Engine {
 public:
  // Starts the thread, which loads the model first. `wake` is called from that thread when messages wait and
  // the host has taken all earlier ones; it must not block.
  Engine(EngineOptions options, std::function<void()> wake);
  // Stops and joins; no wake comes after it returns.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Answered by messages with the command's ticket. After close() or a failure every command is answered with
  // an error. From one host thread; throws ERR_QUEUE_FULL for an append or generation that finds no place.
  void submit(Command command);
  std::vector<Message> take_messages();
  EngineUsage usage() const;
  // Where the host's thread that carries out grammars is asked for masks.
  MaskExchange& masks() { return *masks_; }

  // Asks the thread to end after the current round; does not wait. Idempotent.
  void close();

 private:
  friend class EngineThread;

  // The thread: an EngineThread, then kClosed. The host hears it when all memory has been freed.
  void run();
  // Waits at most that long for the first one; max() waits until there is one, nudge() is called or the
  // engine is closed.
  std::vector<Command> take_commands(std::chrono::milliseconds patience);
  // For other threads of the engine's own: lets take_commands() return. Allocates nothing, so that it cannot
  // fail.
  void nudge();
  void deliver(std::vector<Message>& messages);

  const EngineOptions options_;
  const std::function<void()> wake_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  QueueLimit queue_;
  std::vector<Command> commands_;
  bool nudged_ = false;
  std::vector<Message> messages_;
  EngineUsage usage_;  // but for what queue_ knows
  std::atomic<bool> closing_{false};
  const std::shared_ptr<MaskExchange> masks_;
  std::thread thread_;
};

}  // namespace redrafter
