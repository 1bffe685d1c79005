// Log-probabilities of the tokens that a round has emitted, for all lanes that want some: one copy there, one
// op, one copy back.
#pragma once

#include <cstdint>
#include <vector>

#include "base/arena.h"
#include "ops/ops.h"

namespace redrafter {

class Logprobs {
 public:
  // Of at most `tokens` tokens a round.
  Logprobs(const Backend& backend, int64_t tokens, int64_t vocab);
  // What the constructor takes of the backend.
  static int64_t bytes(int64_t tokens, int64_t vocab);

  // What a lane gets: a number for each of its tokens, and the `top` most probable ones beside each.
  struct Wanted {
    int64_t top;
    std::vector<float>* logprob;
    std::vector<int32_t>* top_token;
    std::vector<float>* top_logprob;
  };
  void clear();
  void want(const Wanted& wanted);
  void add_token(int32_t row, int32_t token);  // of the lane that came last; row of logits

  // Fills in what was wanted, all of it with one call of the op unless somebody wants very many. Waits.
  void compute(const float* logits, Stream& stream);

 private:
  static constexpr int64_t kTopAtOnce = 64;  // beside each token, for all tokens of a round

  struct Arrays {
    int32_t *row, *token;  // [tokens]
    float* logprob;        // [tokens]
    int32_t* top_token;    // [top] of all tokens together
    float* top_logprob;    // [top]
  };
  static Arrays carve(Arena& arena, int64_t tokens, int64_t top);
  static int64_t most_top(int64_t tokens, int64_t vocab);
  void compute_some(const float* logits, size_t first, size_t count, int64_t top, Stream& stream);

  struct Token {
    int32_t row, token;
    size_t wanted;  // its lane, in wanted_
  };

  const Backend& backend_;
  int64_t tokens_limit_, vocab_;
  HostBuffer host_;
  DeviceBuffer device_;
  std::vector<Wanted> wanted_;
  std::vector<Token> tokens_;
};

}  // namespace redrafter
