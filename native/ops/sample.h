// The target's next token for each row of logits: argmax, or one seeded draw from the filtered distribution.
// Ties go to the lowest id. The draw is a pure function of (logits, spec, position): see base/philox.h.
#pragma once
#include "base/tensor.h"

namespace redrafter {

// temperature 0 is greedy. Filters apply in this order, each over what the one before kept:
// temperature, top-k (0: off), top-p (1: off), min-p (0: off; relative to the most probable token).
struct SampleSpec {
  float temperature = 0.0f;
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  uint64_t seed = 0;
};

struct SampleParams {
  const float* logits;      // [rows, vocab]
  const SampleSpec* spec;   // [rows]
  const int32_t* position;  // [rows] absolute position of the token being chosen
  int32_t* token;           // [rows] out; -1 where every logit is NaN
  void* scratch;            // [threads, sample_scratch(vocab)] bytes
  int64_t rows, vocab;
  // When the rows are the nodes of draft trees, the arrays that tree_accept takes: then only rows that its
  // walk reaches have to be chosen, and others may be -1.
  const int32_t* node_token = nullptr;   // [rows]
  const int32_t* node_parent = nullptr;  // [rows]
  const int32_t* begin = nullptr;        // [lanes + 1]
  int64_t lanes = 0;
  // Which ids may be chosen: bit id % 32 of word id / 32. A logit whose bit is 0 counts as NaN, which is
  // never chosen. Null: all may be, of every row.
  const uint32_t* mask = nullptr;       // [*, mask_words(vocab)]
  const int32_t* mask_index = nullptr;  // [rows] a row's mask, or -1: all ids may be chosen
};

constexpr int64_t mask_words(int64_t vocab) { return (vocab + 31) / 32; }

// The words of a row, or null.
constexpr const uint32_t* mask_of(const SampleParams& p, int64_t row) {
  if (p.mask == nullptr || p.mask_index[row] < 0) return nullptr;
  return p.mask + p.mask_index[row] * mask_words(p.vocab);
}

int64_t sample_scratch(int64_t vocab);

// CUDA. Greedy rows get the same tokens as on the CPU. So do seeded rows, but for draws next to a border:
// there the two may take neighbours of each other, because
//  - the weights exp((logit - largest) / temperature) are fp32 on both, with an exp that differs by up to 2
//  units in
//    the last place (and so may make, or part, equal weights);
//  - a weight counts as a whole number, floor(weight * 2^s) with the largest s for which vocab * 2^s <= 2^63
//  (46 for
//    128k ids, 48 for 32k), where the CPU adds doubles. Only weights below 2^(23 - s) lose anything to it,
//    each less than 2^-s of the largest weight; the draw itself is u * (sum of what is kept), rounded down.
// Whole numbers add up to the same in any order, so a token depends on its row alone: on no other row, nor on
// how the work is shared between threads or blocks. Every row is chosen, those of a tree that the walk does
// not reach, too: rows run side by side. `scratch` is not used.

void sample_cpu(const SampleParams&, Stream&);
void sample_cuda(const SampleParams&, Stream&);

// Raw log-probabilities (log-softmax of the logits as they are, before temperature and filters) of one token
// per row, and of the top_k most probable, descending, ties by lowest id.
struct LogprobParams {
  const float* logits;   // [*, vocab]
  const int32_t* row;    // [rows] row of logits
  const int32_t* token;  // [rows]
  float* logprob;        // [rows] out
  int32_t* top_token;    // [rows, top_k] out
  float* top_logprob;    // [rows, top_k] out
  int64_t rows, vocab, top_k;
};

// Both backends add exp(logit - largest) in fp64 and round the result to fp32 once, so that they differ by
// the rare rounding of that. CPU: in order of id. CUDA: parts of 4096 ids, each relative to its own largest;
// id i belongs to thread i / 4 % T of its part, T being 32 for fewer than 1024 ids and 256 else, which adds
// in ascending order; then butterflies over the threads of a warp and over warps; part i belongs to lane i %
// 32, which adds in ascending order, then a butterfly. Fewer than 2^-53 * (64 + vocab / 2^17) of the sum get
// lost.
void logprob_cpu(const LogprobParams&, Stream&);
void logprob_cuda(const LogprobParams&, Stream&);

}  // namespace redrafter
