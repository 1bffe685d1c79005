// Bounds what waits in front of an engine, counted from the moment it is submitted.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/check.h"

namespace redrafter {

class QueueLimit {
 public:
  // A request's place in the queue, until it is admitted or has ended. The limit outlives it.
  class Place {
   public:
    Place() = default;
    Place(Place&& other) noexcept { swap(other); }
    Place& operator=(Place&& other) noexcept {
      Place(std::move(other)).swap(*this);
      return *this;
    }
    ~Place() {
      if (limit_ == nullptr) return;
      limit_->requests_.fetch_sub(1);
      limit_->tokens_.fetch_sub(tokens_);
    }

   private:
    friend class QueueLimit;
    Place(QueueLimit& limit, int64_t tokens) : limit_(&limit), tokens_(tokens) {}
    void swap(Place& other) noexcept {
      std::swap(limit_, other.limit_);
      std::swap(tokens_, other.tokens_);
    }
    QueueLimit* limit_ = nullptr;
    int64_t tokens_ = 0;
  };

  void set(int64_t max_requests, int64_t max_tokens) {
    max_requests_.store(max_requests);
    max_tokens_.store(max_tokens);
  }

  // Host thread only. Throws ERR_QUEUE_FULL; an empty queue takes a request of any size.
  Place enter(int64_t tokens) {
    const int64_t requests = requests_.load(), waiting = tokens_.load();
    REDRAFTER_REQUIRE(requests < max_requests_.load(), "ERR_QUEUE_FULL", requests,
                      " requests are waiting, as many as maxQueuedRequests allows");
    REDRAFTER_REQUIRE(requests == 0 || tokens <= max_tokens_.load() - waiting, "ERR_QUEUE_FULL", requests,
                      " requests with ", waiting, " tokens are waiting, and ", tokens,
                      " more are beyond maxQueuedTokens, ", max_tokens_.load());
    requests_.fetch_add(1);
    tokens_.fetch_add(tokens);
    return {*this, tokens};
  }

  int64_t requests() const { return requests_.load(); }
  int64_t tokens() const { return tokens_.load(); }
  int64_t max_requests() const { return max_requests_.load(); }
  int64_t max_tokens() const { return max_tokens_.load(); }

 private:
  std::atomic<int64_t> requests_{0}, tokens_{0};
  std::atomic<int64_t> max_requests_{INT64_MAX}, max_tokens_{INT64_MAX};  // until the model is loaded
};

}  // namespace redrafter
