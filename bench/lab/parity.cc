// A device beside the CPU, through the engine: every op of decoding and drafting takes part, at the shapes
// and row counts it has there.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "base/check.h"
#include "lossless.h"
#include "shapes.h"

namespace redrafter::lab {
namespace {

constexpr size_t kRequests = 8;
constexpr int64_t kTop = 5;
constexpr double kLogprobBound = 0.1;

// The most that rounding may come to. K and V are stored in 16 bits, as are the activations that meet a
// matrix, so each of about four matrices in a row of a layer brings an error of half a unit in the last of 8
// bits at most, independent of each other.
double kv_bound(int64_t layers) { return 0x1p-9 * std::sqrt(4.0 * count(layers) + 2); }

struct Figures {
  double kv = 0;       // largest error of K or V of a layer, relative to their size (RMS)
  double logprob = 0;  // largest difference, where the ids agree
  int64_t ids = 0, same_ids = 0;
  double tokens_per_step[2] = {0, 0};
};

std::vector<Request> make_requests(const Subject& subject, int64_t tokens, bool plant) {
  std::vector<Request> requests;
  for (size_t i = 0; i < kRequests; ++i) {
    GenerateOptions options;
    options.max_tokens = tokens;
    options.logprobs = kTop;
    options.beam_width = 4, options.beam_length = 4;
    requests.push_back({subject.prompts[i], options});
    if (plant) requests.back().ids.back() ^= 1;
  }
  return requests;
}

std::vector<Outcome> run(const Subject& subject, const std::string& device, int64_t tokens, bool plant,
                         ModelInfo& info) {
  EngineOptions e;
  e.model = subject.target, e.drafter = subject.drafters.front().directory, e.device = device;
  e.dtype = "bf16";
  e.context_tokens = 256;
  e.kv_tokens = static_cast<int64_t>(kRequests) * e.context_tokens;
  Client client(e);
  info = client.info();
  std::vector<Outcome> outcomes(kRequests);
  client.run(make_requests(subject, tokens, plant),
             [&](size_t i, Outcome outcome) { outcomes[i] = std::move(outcome); });
  return outcomes;
}

// Over the first `tokens` tokens of both.
double kv_error(const Outcome& a, const Outcome& b, int64_t tokens, const ModelInfo& info) {
  const int64_t width = info.kv_heads * info.head_dim;
  double worst = 0;
  for (int64_t part = 0; part < 2 * info.layers; ++part) {
    double error = 0, size = 0;
    for (int64_t i = 0; i < tokens * width; ++i) {
      const double x = static_cast<double>(a.kv[static_cast<size_t>(part * a.kv_tokens * width + i)]);
      const double y = static_cast<double>(b.kv[static_cast<size_t>(part * b.kv_tokens * width + i)]);
      error += (x - y) * (x - y), size += y * y;
    }
    // Negated, so that NaN counts.
    if (!(std::sqrt(error / size) <= worst)) worst = std::sqrt(error / size);
  }
  return worst;
}

void add(const Outcome& ours, const Outcome& oracle, const ModelInfo& info, Figures& f) {
  const size_t ids = std::min(ours.ids.size(), oracle.ids.size());
  size_t same = 0;
  while (same < ids && ours.ids[same] == oracle.ids[same]) ++same;
  f.ids += static_cast<int64_t>(ids), f.same_ids += static_cast<int64_t>(same);
  const int64_t tokens =
      std::min({ours.kv_tokens, oracle.kv_tokens,
                oracle.stats.prompt_tokens + std::max<int64_t>(0, static_cast<int64_t>(same) - 1)});
  const double kv = kv_error(ours, oracle, tokens, info);
  if (!(kv <= f.kv)) f.kv = kv;
  for (size_t i = 0; i < same; ++i) {
    const double difference = std::abs(static_cast<double>(ours.logprobs[i] - oracle.logprobs[i]));
    if (!(difference <= f.logprob)) f.logprob = difference;
  }
}

double tokens_per_step(const std::vector<Outcome>& outcomes) {
  int64_t decoded = 0, rounds = 0;
  for (const Outcome& o : outcomes) decoded += o.stats.decoded, rounds += o.stats.rounds;
  return static_cast<double>(decoded) / static_cast<double>(std::max<int64_t>(rounds, 1));
}

}  // namespace

int check_parity(const Options& o) {
  REDRAFTER_REQUIRE(o.plant.empty() || o.plant == "token", "ERR_INVALID_ARGUMENT",
                    "--plant takes token here");
  return with_subject(o, [&](const Subject& subject) {
    const std::string oracle_device = o.device.rfind("cpu", 0) == 0 ? "cpu:oracle" : "cpu";
    ModelInfo info;
    Figures f;
    const std::vector<Outcome> oracle = run(subject, oracle_device, o.tokens, false, info);
    const std::vector<Outcome> ours = run(subject, o.device, o.tokens, o.plant == "token", info);
    for (size_t i = 0; i < kRequests; ++i) add(ours[i], oracle[i], info, f);
    f.tokens_per_step[0] = tokens_per_step(ours), f.tokens_per_step[1] = tokens_per_step(oracle);
    const double bound = kv_bound(info.layers);
    const bool kv_fits = f.kv <= bound, logprob_fits = f.logprob <= kLogprobBound;
    const bool drafts_fit = f.tokens_per_step[0] >= 0.8 * f.tokens_per_step[1] && f.tokens_per_step[1] >= 1.2;
    std::printf(
        "%s, %s beside %s: KV differs by %.5f (bound %.5f)%s; log-probabilities by %.4f (bound %.2f)%s; "
        "%lld of %lld ids the same; tokens per step %.2f beside %.2f%s\n",
        subject.name.c_str(), o.device.c_str(), oracle_device.c_str(), f.kv, bound, kv_fits ? "" : ": FAILED",
        f.logprob, kLogprobBound, logprob_fits ? "" : ": FAILED", static_cast<long long>(f.same_ids),
        static_cast<long long>(f.ids), f.tokens_per_step[0], f.tokens_per_step[1],
        drafts_fit ? "" : ": FAILED");
    if (!o.json.empty()) {
      std::ofstream(o.json) << "{\"parity\":{\"model\":\"" << subject.name << "\",\"device\":\"" << o.device
                            << "\",\"kvError\":" << f.kv << ",\"kvBound\":" << bound
                            << ",\"logprobError\":" << f.logprob << ",\"ids\":" << f.ids
                            << ",\"sameIds\":" << f.same_ids << ",\"tokensPerStep\":" << f.tokens_per_step[0]
                            << ",\"oracleTokensPerStep\":" << f.tokens_per_step[1] << "}}\n";
    }
    return kv_fits && logprob_fits && drafts_fit ? 0 : 1;
  });
}

}  // namespace redrafter::lab
