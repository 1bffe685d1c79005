#include "spec/logprobs.h"

#include <algorithm>

#include "base/check.h"

namespace redrafter {

Logprobs::Logprobs(const Backend& backend, int64_t tokens, int64_t vocab)
    : backend_(backend),
      tokens_limit_(tokens),
      vocab_(vocab),
      host_(backend, static_cast<size_t>(bytes(tokens, vocab))),
      device_(backend, static_cast<size_t>(bytes(tokens, vocab))) {}

// A token at a time needs at most this.
int64_t Logprobs::most_top(int64_t tokens, int64_t vocab) { return std::max(tokens * kTopAtOnce, vocab); }

int64_t Logprobs::bytes(int64_t tokens, int64_t vocab) {
  Arena measure;
  carve(measure, tokens, most_top(tokens, vocab));
  return static_cast<int64_t>(measure.used());
}

Logprobs::Arrays Logprobs::carve(Arena& arena, int64_t tokens, int64_t top) {
  Arrays a{};
  a.row = arena.take<int32_t>(tokens);
  a.token = arena.take<int32_t>(tokens);
  a.logprob = arena.take<float>(tokens);
  a.top_token = arena.take<int32_t>(top);
  a.top_logprob = arena.take<float>(top);
  return a;
}

void Logprobs::clear() {
  wanted_.clear();
  tokens_.clear();
}

void Logprobs::want(const Wanted& wanted) { wanted_.push_back(wanted); }

void Logprobs::add_token(int32_t row, int32_t token) {
  REDRAFTER_CHECK(!wanted_.empty() && static_cast<int64_t>(tokens_.size()) < tokens_limit_);
  tokens_.push_back({row, token, wanted_.size() - 1});
}

void Logprobs::compute(const float* logits, Stream& stream) {
  int64_t top = 0;
  for (const Wanted& wanted : wanted_) top = std::max(top, wanted.top);
  const int64_t fitting = most_top(tokens_limit_, vocab_) / std::max<int64_t>(top, 1);
  for (size_t first = 0; first < tokens_.size();) {
    const size_t count = std::min(tokens_.size() - first, static_cast<size_t>(fitting));
    compute_some(logits, first, count, top, stream);
    first += count;
  }
}

// The most probable come in order, so the first of them are what a lane that wants fewer asked for.
void Logprobs::compute_some(const float* logits, size_t first, size_t count, int64_t top, Stream& stream) {
  const int64_t tokens = static_cast<int64_t>(count);
  Arena measure;
  carve(measure, tokens, tokens * top);
  Arena host_arena(host_.data(), measure.used()), device_arena(device_.as<void>(), measure.used());
  const Arrays host = carve(host_arena, tokens, tokens * top),
               device = carve(device_arena, tokens, tokens * top);
  for (size_t i = 0; i < count; ++i) {
    host.row[i] = tokens_[first + i].row;
    host.token[i] = tokens_[first + i].token;
  }
  const size_t there = static_cast<size_t>(host.token - host.row) * sizeof(int32_t) + count * sizeof(int32_t);
  const auto* end = static_cast<const uint8_t*>(host_.data()) + measure.used();
  backend_.upload_later(device.row, host.row, there, stream);
  backend_.logprob({logits, device.row, device.token, device.logprob, device.top_token, device.top_logprob,
                    tokens, vocab_, top},
                   stream);
  backend_.download_later(host.logprob, device.logprob,
                          static_cast<size_t>(end - reinterpret_cast<const uint8_t*>(host.logprob)), stream);
  backend_.wait(stream);
  for (size_t i = 0; i < count; ++i) {
    const Wanted& wanted = wanted_[tokens_[first + i].wanted];
    const int64_t own = static_cast<int64_t>(i) * top;
    wanted.logprob->push_back(host.logprob[i]);
    wanted.top_token->insert(wanted.top_token->end(), host.top_token + own,
                             host.top_token + own + wanted.top);
    wanted.top_logprob->insert(wanted.top_logprob->end(), host.top_logprob + own,
                               host.top_logprob + own + wanted.top);
  }
}

}  // namespace redrafter
