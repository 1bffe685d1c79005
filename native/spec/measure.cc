#include "spec/measure.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <set>
#include <utility>

#include "base/check.h"
#include "spec/round_batch.h"
#include "spec/round_graphs.h"

namespace redrafter {
namespace {

using Clock = std::chrono::steady_clock;
using KeepGoing = std::function<bool()>;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// The sizes that say most come first: what time does not suffice for is read off its neighbours.
constexpr int64_t kRows[] = {1, 8, 4, 16, 2, 32, 12, 6, 24, 3, 5, 20, 10, 64, 48, 14, 28, 40, 128};
constexpr int64_t kBeams[] = {1, 4, 16, 2, 8, 64, 32};
constexpr size_t kAtLeast = 2;  // sizes of each, however long they take
constexpr int kMostRuns = 9;
// However small the model is, and as passes of one row.
constexpr double kAlwaysMs = 100.0, kPasses = 60.0;
// What decides most is measured so often even so: on a machine with other work one run alone may take ten
// times as long, and nothing would be drafted for long.
constexpr int kFewRuns = 3;
constexpr int64_t kFewRows = 16;

// Times of some sizes. The shortest counts: what comes between only ever makes a run longer.
class Times {
 public:
  template <size_t count>
  Times(const int64_t (&sizes)[count], int64_t most) {
    for (const int64_t size : sizes) {
      if (size <= most) points_.push_back({size, kUnknown});
    }
  }
  size_t sizes() const { return points_.size(); }
  int64_t size(size_t i) const { return points_[i].size; }
  size_t known() const {
    return static_cast<size_t>(
        std::count_if(points_.begin(), points_.end(), [](const auto& p) { return p.ms < kUnknown; }));
  }
  // At most, by the largest size that is known.
  double expected_ms(size_t i) const {
    CostCurve::Point largest{1, 0.0};
    for (const auto& p : points_) {
      if (p.ms < kUnknown && p.size >= largest.size) largest = p;
    }
    return largest.ms * std::max(1.0, static_cast<double>(size(i)) / static_cast<double>(largest.size));
  }
  void add(size_t i, double ms) { points_[i].ms = std::min(points_[i].ms, std::max(ms, 1e-6)); }
  // Of `steps` runs each.
  CostCurve curve(double steps) const {
    std::vector<CostCurve::Point> points;
    for (const auto& p : points_) {
      if (p.ms < kUnknown) points.push_back({p.size, p.ms / steps});
    }
    std::sort(points.begin(), points.end(), [](const auto& a, const auto& b) { return a.size < b.size; });
    // More cannot take less: where it seems to, the smaller one was held up.
    for (size_t i = points.size() - 1; i-- > 0;) points[i].ms = std::min(points[i].ms, points[i + 1].ms);
    return CostCurve(std::move(points));
  }

 private:
  static constexpr double kUnknown = std::numeric_limits<double>::infinity();
  std::vector<CostCurve::Point> points_;
};

// Work of several sizes, launched as rounds are: each size as a graph, where the backend has graphs. Launched
// op by op, small models would take as long for many rows as for one, which is what launching takes.
class Launches {
 public:
  Launches(const Backend& backend, Stream& stream) : backend_(backend), stream_(stream), graphs_(backend) {}
  // Makes the graph of a size that comes for the first time, for which it does the work twice.
  void prepare(int64_t size, const std::function<void()>& work) {
    if (backend_.begin_capture == nullptr || !prepared_.insert(size).second) return;
    for (int i = 0; i < 2; ++i) run(size, work);
  }
  // Waits for its end.
  void run(int64_t size, const std::function<void()>& work) {
    if (backend_.begin_capture != nullptr) {
      graphs_.run({size}, stream_, work);
    } else {
      work();
    }
    backend_.wait(stream_);
  }

 private:
  const Backend& backend_;
  Stream& stream_;
  RoundGraphs graphs_;
  std::set<int64_t> prepared_;
};

// Rows of one sequence, each of which sees those before it and gets logits.
class Passes {
 public:
  Passes(Model& model, KvCache& cache, Stream& stream)
      : model_(model),
        cache_(cache),
        stream_(stream),
        most_(std::min({model.limits().rows, model.limits().positions, cache.free_blocks() * kBlockTokens})),
        batch_({most_, 1, most_ / kBlockTokens + 1}, model.backend()),
        kv_(cache),
        launches_(model.backend(), stream) {}
  int64_t most() const { return most_; }
  void prepare(int64_t rows) {
    fill(rows);
    launches_.prepare(rows, [&] { work(rows); });
  }
  void run(int64_t rows) {
    fill(rows);
    launches_.run(rows, [&] { work(rows); });
  }

 private:
  void fill(int64_t rows) {
    kv_.reserve(rows);
    batch_.clear();
    batch_.add_lane(0, 0, 0, kv_.blocks());
    for (int64_t row = 0; row < rows; ++row) {
      batch_.add_prompt_row(0, row);
      batch_.add_output({});
    }
    batch_.end_lane();
  }
  void work(int64_t rows) {
    batch_.upload(stream_);
    model_.forward(batch_.batch(), cache_.layers(), batch_.device().output, rows, stream_);
  }

  Model& model_;
  KvCache& cache_;
  Stream& stream_;
  int64_t most_;
  RoundBatch batch_;
  KvSequence kv_;
  Launches launches_;
};

// Chains, so that all steps of a draft extend equally many beams.
class Drafts {
 public:
  static constexpr int64_t kSteps = 2;
  Drafts(Model& model, Drafter& drafter, Stream& stream)
      : drafter_(drafter),
        hidden_(model.backend(), static_cast<size_t>(model.config().hidden) * sizeof(float)),
        row_(model.backend(), kLaneBytes),
        root_(model.backend(), kLaneBytes),
        nodes_(model.backend(), kLaneBytes),
        token_(model.backend(), kTreeBytes),
        parent_(model.backend(), kTreeBytes),
        depth_(model.backend(), kTreeBytes),
        launches_(model.backend(), stream) {
    const Backend& backend = model.backend();
    const std::vector<float> zeros(
        std::max<size_t>(kMaxBeamWidth, static_cast<size_t>(model.config().hidden)));
    backend.upload(hidden_.as<void>(), zeros.data(), hidden_.bytes(), stream);
    backend.upload(row_.as<void>(), zeros.data(), row_.bytes(), stream);
    backend.upload(root_.as<void>(), zeros.data(), root_.bytes(), stream);
    backend.wait(stream);
  }
  void prepare(int64_t beams) {
    launches_.prepare(beams, [&] { work(beams); });
  }
  void run(int64_t beams) {
    launches_.run(beams, [&] { work(beams); });
  }

 private:
  void work(int64_t beams) {
    drafter_.propose(
        {hidden_.as<float>(), row_.as<int32_t>(), root_.as<int32_t>(), beams, 1, kSteps,
         max_tree_nodes(1, kSteps), -std::numeric_limits<float>::infinity()},
        {token_.as<int32_t>(), parent_.as<int32_t>(), depth_.as<int32_t>(), nodes_.as<int32_t>()});
  }

  static constexpr size_t kLaneBytes = kMaxBeamWidth * sizeof(int32_t);
  static constexpr size_t kTreeBytes = kLaneBytes * static_cast<size_t>(max_tree_nodes(1, kSteps));
  Drafter& drafter_;
  DeviceBuffer hidden_, row_, root_, nodes_, token_, parent_, depth_;
  Launches launches_;
};

}  // namespace

// A pass and a draft in turn, as in rounds: what one has left in caches is not there for the other. All sizes
// once before any a second time, so that what holds up the machine for a while spoils few of them.
RoundCosts measure_costs(Model& model, KvCache& cache, Drafter& drafter, Stream& stream, double limit_ms,
                         const KeepGoing& keep_going) {
  Passes passes(model, cache, stream);
  Drafts drafts(model, drafter, stream);
  Times rows(kRows, passes.most()), beams(kBeams, kMaxBeamWidth);
  double prepared_ms = 0.0;  // spent on making graphs, which the limits do not count
  const auto time = [&](auto& runs, int64_t size) {
    REDRAFTER_REQUIRE(keep_going(), "ERR_ABORTED", "loading was aborted");
    const auto ready = Clock::now();
    runs.prepare(size);
    prepared_ms += ms_since(ready);
    const auto begin = Clock::now();
    runs.run(size);
    return ms_since(begin);
  };
  const auto start = Clock::now();
  const auto pass = [&](size_t i) { return time(passes, rows.size(i)); };
  pass(0);  // the first finds nothing in caches
  rows.add(0, pass(0));
  const double limit = std::min(limit_ms, std::max(kAlwaysMs, kPasses * rows.expected_ms(0)));
  size_t drafted = 0;
  for (int run = 0; run < kMostRuns; ++run) {
    for (size_t i = 0; i < rows.sizes(); ++i) {
      const bool enough = rows.known() >= kAtLeast && beams.known() >= kAtLeast;
      const double most = run < kFewRuns && rows.size(i) <= kFewRows ? limit_ms : limit;
      if (enough && ms_since(start) - prepared_ms + rows.expected_ms(i) > most) continue;
      rows.add(i, pass(i));
      const size_t next = drafted++ % beams.sizes();
      beams.add(next, time(drafts, beams.size(next)));
    }
  }
  return RoundCosts(rows.curve(1.0), beams.curve(Drafts::kSteps));
}

}  // namespace redrafter
