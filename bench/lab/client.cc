#include "client.h"

#include "base/check.h"

namespace redrafter::lab {

Client::Client(EngineOptions options)
    : engine_(std::move(options), [this] {
        {
          const std::lock_guard lock(mutex_);
          awake_ = true;
        }
        woken_.notify_one();
      }) {
  for (bool ready = false; !ready;) {
    for (Message& message : wait()) {
      if (message.type != MessageType::kReady) continue;
      info_ = std::move(message.info);
      ready = true;
    }
  }
}

std::vector<Message> Client::wait() {
  {
    std::unique_lock lock(mutex_);
    woken_.wait(lock, [this] { return awake_; });
    awake_ = false;
  }
  std::vector<Message> messages = engine_.take_messages();
  for (const Message& message : messages) {
    const bool failed = message.type == MessageType::kFailed || message.type == MessageType::kError;
    REDRAFTER_REQUIRE(!failed, "ERR_ENGINE", message.code, ": ", message.text);
    REDRAFTER_REQUIRE(message.type != MessageType::kClosed, "ERR_ENGINE", "the engine has ended");
  }
  return messages;
}

void Client::run(const std::vector<Request>& requests, const std::function<void(size_t, Outcome)>& take) {
  struct Running {
    size_t index;
    int64_t session;
    Outcome outcome;
  };
  std::map<int64_t, Running> running;  // by ticket
  for (size_t i = 0; i < requests.size(); ++i) {
    Command open{CommandType::kOpen};
    open.ticket = ++last_ticket_;
    open.session = ++last_session_;
    Command generate{CommandType::kGenerate};
    generate.ticket = ++last_ticket_;
    generate.session = open.session;
    generate.value = -1;  // keeps what the session holds
    generate.ids = requests[i].ids;
    generate.generate = requests[i].options;
    generate.generate.buffer_tokens = INT32_MAX;  // nobody reads slowly here
    running[generate.ticket] = {i, open.session, {}};
    engine_.submit(std::move(open));
    engine_.submit(std::move(generate));
  }
  size_t left = requests.size();
  while (left > 0) {
    for (Message& message : wait()) {
      const auto at = running.find(message.ticket);
      if (at == running.end()) continue;  // of an open or close
      Outcome& outcome = at->second.outcome;
      const auto append = [](auto& to, const auto& more) { to.insert(to.end(), more.begin(), more.end()); };
      if (message.type == MessageType::kTokens) {
        append(outcome.ids, message.ids);
        append(outcome.logprobs, message.logprobs);
        append(outcome.top_ids, message.top_ids);
        append(outcome.top_logprobs, message.top_logprobs);
      } else if (message.type == MessageType::kFinish) {
        outcome.reason = message.reason;
        outcome.stats = message.stats;
        outcome.tokens = message.tokens, outcome.kv_tokens = message.kv_tokens;
        Command read{CommandType::kReadKv, message.ticket, at->second.session};
        engine_.submit(std::move(read));
      } else if (message.type == MessageType::kKv) {
        outcome.kv = std::move(message.kv);
        engine_.submit({CommandType::kClose, ++last_ticket_, at->second.session});
        take(at->second.index, std::move(outcome));
        running.erase(at);
        --left;
      }
    }
  }
}

}  // namespace redrafter::lab
