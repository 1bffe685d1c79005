#include "spec/measure.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "base/check.h"
#include "spec/round_batch.h"

namespace redrafter {
namespace {

using Clock = std::chrono::steady_clock;
using KeepGoing = std::function<bool()>;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// The sizes that say most come first: what time does not suffice for is read off its neighbours.
constexpr int64_t kRows[] = {1, 8, 3, 16, 2, 5, 32, 4, 12, 6, 64, 24, 10, 48, 128, 96, 256, 192};
constexpr int64_t kBeams[] = {1, 4, 16, 2, 8, 64, 32};
constexpr size_t kAtLeast = 2;  // sizes of each, however long they take
constexpr int kMostRuns = 9;

// The shortest of some runs within `limit_ms`, of two at least: the first finds nothing in caches, and what
// comes between only ever makes a run longer.
template <typename Run>
double shortest_ms(const Run& run, double limit_ms, const KeepGoing& keep_going) {
  const auto start = Clock::now();
  double shortest = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kMostRuns && (i < 2 || ms_since(start) < limit_ms); ++i) {
    REDRAFTER_REQUIRE(keep_going(), "ERR_ABORTED", "loading was aborted");
    const auto begin = Clock::now();
    run();
    shortest = std::min(shortest, ms_since(begin));
  }
  return std::max(shortest, 1e-6);
}

// Times by size in ascending order. Stops in time when at least kAtLeast are there.
template <size_t count, typename Run>
CostCurve curve(const int64_t (&sizes)[count], int64_t most, double limit_ms, const KeepGoing& keep_going,
                const Run& run) {
  const auto start = Clock::now();
  std::vector<CostCurve::Point> points;
  for (const int64_t size : sizes) {
    if (size > most) continue;
    if (points.size() >= kAtLeast && ms_since(start) >= limit_ms) break;
    points.push_back(
        {size, shortest_ms([&] { run(size); }, limit_ms / static_cast<double>(count), keep_going)});
  }
  std::sort(points.begin(), points.end(), [](const auto& a, const auto& b) { return a.size < b.size; });
  // More cannot take less: where it seems to, the smaller one was held up.
  for (size_t i = points.size() - 1; i-- > 0;) points[i].ms = std::min(points[i].ms, points[i + 1].ms);
  return CostCurve(std::move(points));
}

// Rows of one sequence, each of which sees those before it and gets logits.
CostCurve forward_curve(Model& model, KvCache& cache, Stream& stream, double limit_ms,
                        const KeepGoing& keep_going) {
  const ForwardLimits& limits = model.limits();
  const int64_t most = std::min({limits.rows, limits.positions, cache.free_blocks() * kBlockTokens});
  const Backend& backend = model.backend();
  RoundBatch batch({most, 1, most / kBlockTokens + 1}, backend);
  KvSequence kv(cache);
  return curve(kRows, most, limit_ms, keep_going, [&](int64_t rows) {
    kv.reserve(rows);
    batch.clear();
    batch.add_lane(0, 0, 0, kv.blocks());
    for (int64_t row = 0; row < rows; ++row) {
      batch.add_prompt_row(0, row);
      batch.add_output({});
    }
    batch.end_lane();
    batch.upload(stream);
    const RoundBatch::Arrays& b = batch.device();
    model.forward(batch.batch(), cache.layers(), b.output, rows, stream);
    backend.wait(stream);
  });
}

// Chains, so that both steps of a draft extend equally many beams.
CostCurve draft_curve(Model& model, Drafter& drafter, Stream& stream, double limit_ms,
                      const KeepGoing& keep_going) {
  constexpr int64_t kSteps = 2;
  const Backend& backend = model.backend();
  const auto lanes_of = [&](size_t bytes) { return DeviceBuffer(backend, kMaxBeamWidth * bytes); };
  const size_t id = sizeof(int32_t), tree = static_cast<size_t>(max_tree_nodes(1, kSteps)) * id;
  const DeviceBuffer hidden(backend, static_cast<size_t>(model.config().hidden) * sizeof(float));
  const DeviceBuffer row = lanes_of(id), root = lanes_of(id), nodes = lanes_of(id), token = lanes_of(tree),
                     parent = lanes_of(tree), depth = lanes_of(tree);
  const std::vector<float> zeros(std::max<size_t>(kMaxBeamWidth, static_cast<size_t>(model.config().hidden)));
  backend.upload(hidden.as<void>(), zeros.data(), hidden.bytes(), stream);
  backend.upload(row.as<void>(), zeros.data(), row.bytes(), stream);
  backend.upload(root.as<void>(), zeros.data(), root.bytes(), stream);
  CostCurve both = curve(kBeams, kMaxBeamWidth, limit_ms, keep_going, [&](int64_t beams) {
    drafter.propose({hidden.as<float>(), row.as<int32_t>(), root.as<int32_t>(), beams, 1, kSteps,
                     max_tree_nodes(1, kSteps), -std::numeric_limits<float>::infinity()},
                    {token.as<int32_t>(), parent.as<int32_t>(), depth.as<int32_t>(), nodes.as<int32_t>()});
    backend.wait(stream);
  });
  both.scale(1.0 / kSteps);
  return both;
}

}  // namespace

RoundCosts measure_costs(Model& model, KvCache& cache, Drafter& drafter, Stream& stream, double limit_ms,
                         const KeepGoing& keep_going) {
  CostCurve forward = forward_curve(model, cache, stream, 0.7 * limit_ms, keep_going);
  return RoundCosts(std::move(forward), draft_curve(model, drafter, stream, 0.3 * limit_ms, keep_going));
}

}  // namespace redrafter
