// Whole rounds, as the engine runs them, on random weights: plain, and drafted with a simulated acceptance.
// Everything runs as it does with a trained drafter, the walk included; then a kernel of its own puts another
// path in place of the one that was found, so that on average as many tokens come out of a round as asked
// for.
#include "rounds.h"

#include <algorithm>
#include <chrono>

#include "kernels.h"
#include "kv/cache.h"
#include "model/forward.h"
#include "spec/drafters/recurrent.h"
#include "spec/round.h"
#include "timing.h"

namespace redrafter::lab {
namespace {

// The functions of a table carry no state, so what they need lies here.
struct Simulation {
  Backend device;           // what the table of the simulation stands on
  double* tokens_per_step;  // as replace_paths wants them
  uint32_t* rounds;
  void* graph;  // of the last round that was one
};
Simulation simulation;
constexpr size_t kMostLanes = 1024;  // with those that fill up a graph

void simulated_accept(const TreeAcceptParams& p, Stream& stream) {
  simulation.device.tree_accept(p, stream);
  replace_paths(p, simulation.tokens_per_step, simulation.rounds, stream);
}

void launch_and_note(void* graph, Stream& stream) {
  simulation.graph = graph;
  simulation.device.launch_graph(graph, stream);
}

// Requests of one engine, and the clock over some rounds of them.
class Bench {
 public:
  Bench(const Backend& backend, Stream& stream, const ModelShape& m, int64_t requests)
      : model_shape_(m),
        stream_(stream),
        memory_(backend, stream),
        model_(random_config(m), random_weights(memory_, m), backend, stream,
               {std::max(m.context, requests * kMostNodes), 2 * m.context, 1}),
        drafter_(random_drafter(m), model_.weights().embedding, backend, stream),
        cache_(KvShape(m.layers, m.kv_heads, m.head_dim,
                       requests * ((2 * m.context + kMostNodes) / kBlockTokens + 1), backend, DType::kBF16),
               backend, stream),
        round_(model_, cache_, &drafter_, stream) {
    for (int64_t i = 0; i < requests; ++i) {
      auto request = std::make_unique<Request>(cache_);
      for (int64_t t = 0; t < m.context; ++t)
        request->tokens.push_back(static_cast<int32_t>((7 * t + i) % m.vocab));
      request->lane.tokens = &request->tokens;
      request->lane.kv = &request->kv;
      request->lane.hidden = HiddenRows::Taken(round_.hidden());
      request->kv.reserve(2 * m.context);
      request->lane.max_tokens = m.context;
      request->lane.prompt_rows = m.context;
      round_.run({&request->lane});  // the prompt
      lanes_.push_back(&request->lane);
      requests_.push_back(std::move(request));
    }
  }

  struct Figures {
    double ms, device_ms, tokens;  // of a round; tokens of each request
  };
  // Decodes anew from the end of the prompt.
  Figures measure(int64_t width, int64_t length) {
    for (Lane* lane : lanes_) {
      lane->tokens->resize(static_cast<size_t>(model_shape_.context + 1));
      lane->kv->truncate(model_shape_.context);
      lane->kv->reserve(2 * model_shape_.context + kMostNodes);
      lane->generated = 1;
      lane->beam_width = width, lane->beam_length = length;
    }
    simulation.graph = nullptr;
    const bool emulated = device_info().emulated;
    // The second round of a shape makes the graph.
    for (int i = 0; i < (emulated ? 2 : 4); ++i) round_.run(lanes_);
    const int rounds = emulated ? 3 : 24;
    int64_t tokens = 0;
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < rounds; ++i) {
      round_.run(lanes_);
      for (const Lane* lane : lanes_) tokens += static_cast<int64_t>(lane->emitted.size());
    }
    const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
    check_stream(stream_);
    REDRAFTER_REQUIRE(simulation.graph != nullptr, "ERR_INTERNAL", "the rounds were no graphs");
    const double device_us = graph_us(simulation.device, simulation.graph, stream_, emulated ? 1 : rounds);
    return {spent.count() / rounds, device_us / 1000,
            count(tokens) / rounds / count(static_cast<int64_t>(lanes_.size()))};
  }

 private:
  static constexpr int64_t kMostNodes = max_tree_nodes(kBeamWidth, kBeamLength);

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

  ModelShape model_shape_;
  Stream& stream_;
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
  Backend simulated = backend;
  simulated.tree_accept = simulated_accept;
  simulated.launch_graph = launch_and_note;
  Memory memory(backend, stream);
  simulation = {backend, memory.of(std::vector<double>(1, 1.0)),
                memory.of(std::vector<uint32_t>(kMostLanes, 0)), nullptr};
  Bench bench(simulated, stream, model, requests);
  std::vector<RoundFigures> all;
  for (const double tokens : {1.0, 2.0, 3.0, 3.5, 4.0}) {
    backend.upload(simulation.tokens_per_step, &tokens, sizeof tokens, stream);
    const bool drafts = tokens > 1.0;
    const auto [ms, device_ms, found] = bench.measure(drafts ? kBeamWidth : 0, drafts ? kBeamLength : 0);
    const double plain_ms = drafts ? all.front().ms : ms;
    all.push_back({requests, tokens, found, ms, device_ms, plain_ms * found / ms});
  }
  return all;
}

}  // namespace redrafter::lab
