// An engine and a host of it that waits: what the addon is for JavaScript, for the lab.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace redrafter::lab {

struct Request {
  std::vector<int32_t> ids;
  GenerateOptions options;
};

struct Outcome {
  std::vector<int32_t> ids, top_ids;
  std::vector<float> logprobs, top_logprobs;
  std::string reason;
  int64_t tokens = 0, kv_tokens = 0;  // of the session
  std::vector<float> kv;              // [layers, 2, kv_tokens, kv_heads, head_dim]
  RequestStats stats;
};

class Client {
 public:
  // Returns when the model is loaded. Throws what the engine answers, here and below.
  explicit Client(EngineOptions options);

  const ModelInfo& info() const { return info_; }

  // All at once, each in a session of its own. `take` gets each with its index as soon as it has ended.
  void run(const std::vector<Request>& requests, const std::function<void(size_t, Outcome)>& take);

 private:
  // Messages that arrived, in order; waits for some.
  std::vector<Message> wait();

  std::mutex mutex_;
  std::condition_variable woken_;
  bool awake_ = false;
  ModelInfo info_{};
  int64_t last_ticket_ = 0, last_session_ = 0;
  Engine engine_;  // the last member: its thread uses the others
};

}  // namespace redrafter::lab
