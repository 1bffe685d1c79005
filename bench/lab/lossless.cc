// What is promised: a request gets the same ids, log-probabilities and KV alone and beside others, plainly
// and drafted. The engine that runs is the one of the addon.
#include "lossless.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "base/check.h"
#include "base/checksum.h"

namespace redrafter::lab {
namespace {

// Alternating: greedy and sampled; log-probabilities or none; ended by EOS or not.
std::vector<Request> make_requests(const Subject& subject, const ModelInfo& info, int64_t tokens) {
  std::vector<Request> requests;
  for (size_t i = 0; i < subject.prompts.size(); ++i) {
    GenerateOptions options;
    options.max_tokens = std::max<int64_t>(1, tokens - static_cast<int64_t>(i % 5));
    if (i % 2 == 1) {
      options.sample.temperature = 0.6f + 0.1f * static_cast<float>(i % 5);
      options.sample.seed = i;
      if (i % 4 == 1) options.sample.top_p = 0.95f;
      if (i % 8 == 3) options.sample.top_k = 40;
    }
    options.logprobs = static_cast<int64_t>(i % 3) - 1;
    if (i % 4 < 2) options.eos = info.eos;
    requests.push_back({subject.prompts[i], options});
  }
  return requests;
}

// Of the drafted runs, by request; 0 x 0 lets a plain request run among them.
std::pair<int64_t, int64_t> draft_shape(size_t request) {
  constexpr std::pair<int64_t, int64_t> kShapes[] = {{8, 4}, {4, 4}, {1, 4}, {8, 2}, {16, 3}, {3, 5}, {0, 0}};
  return kShapes[request % std::size(kShapes)];
}

uint64_t checksum(const std::vector<float>& values) {
  Checksum sum;
  sum.update(values.data(), values.size() * sizeof(float));
  return sum.value();
}

// What is compared, without the values of KV.
struct Expected {
  Outcome outcome;
  uint64_t kv;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class Check {
 public:
  Check(const Subject& subject, const Options& options, const Subject::Drafter& drafter)
      : options_(options),
        client_(engine_options(subject, options, drafter)),
        requests_(make_requests(subject, client_.info(), options.tokens)) {}

  // Every request alone, decoded plainly.
  void run_alone() {
    for (size_t i = 0; i < requests_.size(); ++i) {
      Request request = requests_[i];
      if (options_.plant == "seed") request.options.sample.seed += 1000;
      client_.run({request}, [&](size_t, Outcome outcome) {
        const uint64_t kv = checksum(outcome.kv);
        outcome.kv.clear();
        expected_.push_back({std::move(outcome), kv});
      });
    }
  }

  // `count` of them at once, from different ones on.
  void run_together(int64_t count, bool drafted) {
    std::vector<Request> together;
    std::vector<size_t> index;
    for (int64_t i = 0; i < count; ++i) {
      index.push_back(static_cast<size_t>(5 * count + i) % requests_.size());
      together.push_back(requests_[index.back()]);
      if (!drafted) continue;
      const auto [width, length] = draft_shape(index.back());
      together.back().options.beam_width = width, together.back().options.beam_length = length;
    }
    const std::string what = std::to_string(count) + " at once, " + (drafted ? "drafted" : "plain");
    client_.run(together, [&](size_t i, Outcome outcome) {
      if (options_.plant == "kv" && !outcome.kv.empty()) {
        uint32_t bits;
        std::memcpy(&bits, outcome.kv.data(), sizeof bits);
        bits ^= 1;
        std::memcpy(outcome.kv.data(), &bits, sizeof bits);
      }
      compare(what + ", request " + std::to_string(index[i]), expected_[index[i]], outcome);
      const bool drafts = together[i].options.beam_width > 0;
      if (drafts) {
        ++counts.drafted;
        counts.decoded += outcome.stats.decoded, counts.rounds += outcome.stats.rounds;
      }
    });
  }

  struct Counts {
    int64_t generations = 0, ids = 0, differing_ids = 0, differing_kv = 0, differing_other = 0;
    int64_t drafted = 0, decoded = 0, rounds = 0;
    double tokens_per_step() const {
      return rounds == 0 ? 0 : static_cast<double>(decoded) / static_cast<double>(rounds);
    }
    bool same() const { return differing_ids + differing_kv + differing_other == 0 && generations > 0; }
  } counts;

 private:
  static EngineOptions engine_options(const Subject& subject, const Options& options,
                                      const Subject::Drafter& drafter) {
    EngineOptions e;
    e.model = subject.target, e.drafter = drafter.directory, e.device = options.device;
    e.context_tokens = 256;
    e.kv_tokens = static_cast<int64_t>(subject.prompts.size()) * e.context_tokens;
    e.prefill_chunk = 64;
    return e;
  }

  void differs(const std::string& what, const std::string& how) {
    constexpr int kMostPrinted = 20;
    if (printed_++ < kMostPrinted) std::printf("differs: %s: %s\n", what.c_str(), how.c_str());
  }

  void compare(const std::string& what, const Expected& expected, const Outcome& outcome) {
    const Outcome& plain = expected.outcome;
    ++counts.generations;
    counts.ids += static_cast<int64_t>(plain.ids.size());
    int64_t ids = static_cast<int64_t>(std::max(plain.ids.size(), outcome.ids.size()) -
                                       std::min(plain.ids.size(), outcome.ids.size()));
    for (size_t i = 0; i < std::min(plain.ids.size(), outcome.ids.size()); ++i)
      ids += plain.ids[i] != outcome.ids[i] ? 1 : 0;
    if (ids > 0) differs(what, std::to_string(ids) + " ids");
    counts.differing_ids += ids;
    if (plain.tokens != outcome.tokens || plain.kv_tokens != outcome.kv_tokens ||
        expected.kv != checksum(outcome.kv)) {
      differs(what, "KV");
      ++counts.differing_kv;
    }
    if (plain.reason != outcome.reason || plain.top_ids != outcome.top_ids ||
        !same_bits(plain.logprobs, outcome.logprobs) ||
        !same_bits(plain.top_logprobs, outcome.top_logprobs)) {
      differs(what, "finish or log-probabilities");
      ++counts.differing_other;
    }
  }

  const Options& options_;
  Client client_;
  std::vector<Request> requests_;
  std::vector<Expected> expected_;
  int printed_ = 0;
};

}  // namespace

int check_lossless(const Options& o) {
  REDRAFTER_REQUIRE(o.plant.empty() || o.plant == "seed" || o.plant == "kv", "ERR_INVALID_ARGUMENT",
                    "--plant takes seed or kv here");
  std::string json;
  const int failed = with_subject(o, [&](const Subject& subject) {
    int result = 0;
    for (const Subject::Drafter& drafter : subject.drafters) {
      Check check(subject, o, drafter);
      check.run_alone();
      for (const int64_t size : o.sizes) {
        for (const bool drafted : {false, true}) check.run_together(size, drafted);
      }
      const auto& c = check.counts;
      // Without accepted drafts, trees and paths were hardly tried.
      const bool tried = !drafter.knows || c.tokens_per_step() >= 1.2;
      std::printf(
          "%s, drafter %s, %s: %lld generations, %lld ids, %lld differ; KV of %lld differs; "
          "log-probabilities "
          "or finish of %lld; %.2f tokens per step of the drafted%s\n",
          subject.name.c_str(), drafter.name.c_str(), o.device.c_str(), static_cast<long long>(c.generations),
          static_cast<long long>(c.ids), static_cast<long long>(c.differing_ids),
          static_cast<long long>(c.differing_kv), static_cast<long long>(c.differing_other),
          c.tokens_per_step(), tried ? "" : ": FAILED, too few drafts were accepted to have tried anything");
      std::fflush(stdout);
      if (!c.same() || !tried) result = 1;
      char line[512];
      std::snprintf(
          line, sizeof line,
          "%s{\"model\":\"%s\",\"drafter\":\"%s\",\"device\":\"%s\",\"generations\":%lld,\"ids\":%lld,"
          "\"differingIds\":%lld,\"differingKv\":%lld,\"differingOther\":%lld,\"tokensPerStep\":%.4f}",
          json.empty() ? "" : ",\n", subject.name.c_str(), drafter.name.c_str(), o.device.c_str(),
          static_cast<long long>(c.generations), static_cast<long long>(c.ids),
          static_cast<long long>(c.differing_ids), static_cast<long long>(c.differing_kv),
          static_cast<long long>(c.differing_other), c.tokens_per_step());
      json += line;
    }
    return result;
  });
  if (!o.json.empty()) std::ofstream(o.json) << "{\"lossless\":[" << json << "]}\n";
  return failed;
}

}  // namespace redrafter::lab
