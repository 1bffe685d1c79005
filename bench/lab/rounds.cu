// Whole rounds, as the engine runs them, on random weights: plain, and drafted with a simulated acceptance.
// Everything runs as it does with a trained drafter, the walk included; then a kernel of its own puts another
// path in place of the one that was found, so that on average as many tokens come out of a round as asked
// for.
#include <chrono>
#include <cmath>

#include "base/device.cuh"
#include "kv/cache.h"
#include "model/forward.h"
#include "rounds.h"
#include "spec/drafters/recurrent.h"
#include "spec/round.h"

namespace redrafter::lab {
namespace {

// What the kernel of the simulation knows beside the parameters of the op, in device memory: graphs are
// launched again and again.
struct Simulation {
  double tokens_per_step;  // with the token that the target adds
  uint32_t* rounds;        // [lanes] counts
};
Simulation simulation;
Backend device;  // what the table below stands on

__global__ void simulate_kernel(TreeAcceptParams p, double tokens_per_step, uint32_t* rounds) {
  const int64_t lane = blockIdx.x;
  const int32_t first = p.begin[lane], nodes = p.begin[lane + 1] - first;
  if (nodes == 0) return;  // it fills up a graph
  // A low-discrepancy sequence: the share of rounds with one token more is as asked for from the first rounds
  // on.
  const double turn = (rounds[lane]++ + static_cast<double>(lane) / 7) * 0.6180339887498949;
  const double whole = floor(tokens_per_step);
  const int wanted = static_cast<int>(whole) + (turn - floor(turn) < tokens_per_step - whole ? 1 : 0);
  int32_t node = 0, length = 1;
  p.path[lane * p.stride] = 0;
  for (int32_t child = 1; child < nodes && length < wanted && length < p.stride; ++child) {
    if (p.parent[first + child] != node) continue;
    p.emitted[lane * p.stride + length - 1] = p.token[first + child];
    node = child;
    p.path[lane * p.stride + length++] = node;
  }
  p.emitted[lane * p.stride + length - 1] = p.chosen[first + node];
  p.path_length[lane] = length;
}

void simulated_accept(const TreeAcceptParams& p, Stream& stream) {
  device.tree_accept(p, stream);
  launch("simulate", simulate_kernel, dim3(static_cast<unsigned>(p.lanes)), dim3(1), 0, stream, p,
         simulation.tokens_per_step, simulation.rounds);
}

// Requests of one engine, and the clock over some rounds of them.
class Bench {
 public:
  Bench(const Backend& backend, Stream& stream, const ModelShape& m, int64_t requests)
      : memory_(backend, stream),
        model_(random_config(m), random_weights(memory_, m), backend, stream,
               {std::max<int64_t>(kContext, requests * max_tree_nodes(kBeamWidth, kBeamLength)), 2 * kContext,
                1}),
        drafter_(random_drafter(m), model_.weights().embedding, backend, stream),
        cache_(KvShape(m.layers, m.kv_heads, m.head_dim, requests * (2 * kContext / kBlockTokens + 8),
                       backend, DType::kBF16),
               backend, stream),
        round_(model_, cache_, &drafter_, stream, kContext) {
    for (int64_t i = 0; i < requests; ++i) {
      auto request = std::make_unique<Request>(cache_);
      for (int64_t t = 0; t < kContext; ++t)
        request->tokens.push_back(static_cast<int32_t>((7 * t + i) % m.vocab));
      request->lane.tokens = &request->tokens;
      request->lane.kv = &request->kv;
      request->lane.hidden = HiddenRows::Taken(round_.hidden());
      request->kv.reserve(2 * kContext + 64);
      request->lane.max_tokens = kContext;
      round_.run({&request->lane});  // the prompt
      lanes_.push_back(&request->lane);
      requests_.push_back(std::move(request));
    }
  }

  // Milliseconds of a round, and tokens that come out of one for each request.
  struct Figures {
    double ms, tokens;
  };
  Figures measure(int64_t width, int64_t length) {
    for (Lane* lane : lanes_) lane->beam_width = width, lane->beam_length = length;
    for (int i = 0; i < 4; ++i) round_.run(lanes_);
    constexpr int kRounds = 24;
    int64_t tokens = 0;
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kRounds; ++i) {
      round_.run(lanes_);
      for (const Lane* lane : lanes_) tokens += static_cast<int64_t>(lane->emitted.size());
    }
    const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
    return {spent.count() / kRounds, count(tokens) / kRounds / count(static_cast<int64_t>(lanes_.size()))};
  }

 private:
  static constexpr int64_t kContext = 512;

  struct Request {
    explicit Request(KvCache& cache) : kv(cache) {}
    std::vector<int32_t> tokens;
    KvSequence kv;
    Lane lane;
  };

  RecurrentWeights random_drafter(const ModelShape& m) {
    RecurrentWeights r{};
    r.config.cell = Cell::kGru;
    r.config.vocab = m.vocab, r.config.hidden = m.hidden, r.config.exit = m.hidden, r.config.blocks = 1;
    r.w = memory_.matrix(3 * m.hidden, m.hidden);
    r.u = memory_.matrix(3 * m.hidden, m.hidden);
    r.projection = memory_.matrix(m.hidden, 2 * m.hidden);
    r.blocks.push_back({memory_.matrix(m.hidden, m.hidden), nullptr});
    r.head = memory_.matrix(std::min(kDraftVocab, m.vocab), m.hidden);
    return r;
  }

  Memory memory_;
  Model model_;
  RecurrentDrafter drafter_;
  KvCache cache_;
  Round round_;
  std::vector<std::unique_ptr<Request>> requests_;
  std::vector<Lane*> lanes_;
};

}  // namespace

std::vector<RoundFigures> measure_rounds(const Backend& backend, Stream& stream, const ModelShape& model,
                                         int64_t requests) {
  device = backend;
  Backend simulated = backend;
  simulated.tree_accept = simulated_accept;
  Memory memory(backend, stream);
  simulation.rounds = memory.of(std::vector<uint32_t>(static_cast<size_t>(requests), 0));
  std::vector<RoundFigures> all;
  double plain_ms = 0;
  for (const double tokens : {1.0, 2.0, 3.0, 3.5, 4.0}) {
    simulation.tokens_per_step = tokens;
    Bench bench(simulated, stream, model, requests);
    const bool drafts = tokens > 1.0;
    const auto [ms, found] = bench.measure(drafts ? kBeamWidth : 0, drafts ? kBeamLength : 0);
    if (!drafts) plain_ms = ms;
    all.push_back({requests, tokens, found, ms, plain_ms * found / ms});
  }
  return all;
}

}  // namespace redrafter::lab
