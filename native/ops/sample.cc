#include "ops/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/philox.h"
#include "base/threads.h"
#include "ops/top.h"

namespace redrafter {
namespace {

struct Candidate {
  float weight;  // exp((logit - max) / temperature)
  int32_t id;
};

// The most probable first, equal ones in the order they have. Weights are in (0, 1], so that their bits are
// in the order of the weights. Returns c or `spare`, whichever then holds them.
Candidate* sort_by_weight(Candidate* c, Candidate* spare, int64_t count) {
  constexpr int kBits = 10, kPasses = 3, kDigits = 1 << kBits;
  constexpr uint32_t kOne = 0x3f800000;  // the bits of 1
  static_assert(kOne >> (kBits * kPasses) == 0);
  const auto digit = [](const Candidate& of, int pass) {
    return (kOne - f32_to_bits(of.weight)) >> (kBits * pass) & (kDigits - 1);
  };
  uint32_t next[kPasses][kDigits] = {};  // how many of each digit, then where the next of them goes
  for (int64_t i = 0; i < count; ++i) {
    for (int pass = 0; pass < kPasses; ++pass) ++next[pass][digit(c[i], pass)];
  }
  for (int pass = 0; pass < kPasses; ++pass) {
    uint32_t at = 0;
    for (uint32_t& each : next[pass]) at += std::exchange(each, at);
    for (int64_t i = 0; i < count; ++i) spare[next[pass][digit(c[i], pass)]++] = c[i];
    std::swap(c, spare);
  }
  return c;
}

// Logits of which some must not be chosen.
struct Masked {
  const float* logits;
  const uint32_t* mask;
  float operator[](int64_t id) const {
    return (mask[id / 32] >> (id % 32) & 1) != 0 ? logits[id] : std::numeric_limits<float>::quiet_NaN();
  }
};

template <typename Logits>
int32_t argmax(const Logits& logits, int64_t vocab) {
  int32_t best = -1;
  for (int64_t i = 0; i < vocab; ++i) {
    if (logits[i] != logits[i]) continue;
    if (best < 0 || logits[i] > logits[best]) best = static_cast<int32_t>(i);
  }
  return best;
}

double total_weight(const Candidate* c, int64_t count) {
  double total = 0.0;
  for (int64_t i = 0; i < count; ++i) total += c[i].weight;
  return total;
}

// Applies top-k, top-p and min-p to candidates sorted by weight; returns how many of c are kept.
int64_t filter(const SampleSpec& spec, const Candidate* c, int64_t count) {
  if (spec.top_k > 0) count = std::min<int64_t>(count, spec.top_k);
  if (spec.top_p < 1.0f) {
    const double limit = spec.top_p * total_weight(c, count);
    double sum = 0.0;
    int64_t kept = 0;
    while (kept < count && sum < limit) sum += c[kept++].weight;
    count = std::max<int64_t>(kept, 1);
  }
  if (spec.min_p > 0.0f) {
    const float least = spec.min_p * c[0].weight;
    int64_t kept = 1;
    while (kept < count && c[kept].weight >= least) ++kept;
    count = kept;
  }
  return count;
}

template <typename Logits>
int32_t draw(const SampleSpec& spec, const Logits& logits, int64_t vocab, uint64_t position, Candidate* c) {
  const int32_t best = argmax(logits, vocab);
  if (best < 0 || !std::isfinite(logits[best])) return best;
  int64_t count = 0;
  for (int64_t i = 0; i < vocab; ++i) {
    const float weight = std::exp((logits[i] - logits[best]) / spec.temperature);
    if (weight > 0.0f) c[count++] = {weight, static_cast<int32_t>(i)};  // drops NaN too
  }
  // Without any filter they stay in the order of ids: either order is a pure function of the row.
  if ((spec.top_k > 0 && spec.top_k < count) || spec.top_p < 1.0f || spec.min_p > 0.0f) {
    c = sort_by_weight(c, c + vocab, count);
    count = filter(spec, c, count);
  }
  const double u = philox_uniform(spec.seed, position, 0, DrawPurpose::kToken) * total_weight(c, count);
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    sum += c[i].weight;
    if (u < sum) return c[i].id;
  }
  return c[count - 1].id;  // u rounded up to the total
}

template <typename Logits>
int32_t choose(const SampleParams& p, const Logits& logits, int64_t row, int thread) {
  const SampleSpec& spec = p.spec[row];
  if (spec.temperature <= 0.0f) return argmax(logits, p.vocab);
  auto* scratch =
      reinterpret_cast<Candidate*>(static_cast<char*>(p.scratch) + thread * sample_scratch(p.vocab));
  return draw(spec, logits, p.vocab, static_cast<uint64_t>(p.position[row]), scratch);
}

int32_t choose(const SampleParams& p, int64_t row, int thread) {
  const float* logits = p.logits + row * p.vocab;
  const uint32_t* mask = mask_of(p, row);
  return mask == nullptr ? choose(p, logits, row, thread) : choose(p, Masked{logits, mask}, row, thread);
}

double log_sum_exp(const float* logits, int64_t vocab, float largest) {
  double sum = 0.0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(logits[i]) - largest);
  return largest + std::log(sum);
}

}  // namespace

int64_t sample_scratch(int64_t vocab) {
  return (2 * vocab * static_cast<int64_t>(sizeof(Candidate)) + 63) / 64 * 64;  // one half to sort into
}

void sample_cpu(const SampleParams& p, Stream& stream) {
  if (p.begin == nullptr) {
    stream.threads->run(p.rows, 8 * p.rows * p.vocab,
                        [&p](int64_t row, int thread) { p.token[row] = choose(p, row, thread); });
    return;
  }
  // A wide tree has hundreds of nodes, the walk visits a handful.
  std::fill(p.token, p.token + p.rows, -1);
  stream.threads->run(p.lanes, 16 * p.lanes * p.vocab, [&p](int64_t lane, int thread) {
    const int64_t first = p.begin[lane], end = p.begin[lane + 1];
    for (int64_t node = first, child = first; node >= 0; node = child) {
      p.token[node] = choose(p, node, thread);
      child = -1;
      for (int64_t other = node + 1; other < end && child < 0; ++other) {
        if (p.node_parent[other] == node - first && p.node_token[other] == p.token[node]) child = other;
      }
    }
  });
}

void logprob_cpu(const LogprobParams& p, Stream& stream) {
  stream.threads->run(p.rows, 8 * p.rows * p.vocab, [&p](int64_t i, int) {
    const float* logits = p.logits + p.row[i] * p.vocab;
    const int32_t best = argmax(logits, p.vocab);
    const double norm =
        best < 0 ? std::numeric_limits<double>::quiet_NaN() : log_sum_exp(logits, p.vocab, logits[best]);
    p.logprob[i] = static_cast<float>(logits[p.token[i]] - norm);
    int32_t* ids = p.top_token + i * p.top_k;
    float* values = p.top_logprob + i * p.top_k;
    if (p.top_k > 0) select_top(logits, p.vocab, p.top_k, ids, values);
    for (int64_t k = 0; k < p.top_k; ++k) values[k] = static_cast<float>(values[k] - norm);
  });
}

}  // namespace redrafter
