// Whole passes of a model that is loaded, with the time of each op. Rows are one sequence after a context,
// and all get logits.
#include <array>
#include <limits>
#include <map>

#include "kv/cache.h"
#include "model/forward.h"
#include "report.h"
#include "spec/round_batch.h"

namespace redrafter::bench {
namespace {

using Clock = std::chrono::steady_clock;
struct Spent {
  double seconds = 0.0;
  int64_t calls = 0;
};
std::map<const char*, Spent> spent;  // by op, in the pass that runs
Backend plain;                       // what the timed ops call

template <auto op, const char* const& name, typename Params>
void timed(const Params& params, Stream& stream) {
  const auto start = Clock::now();
  (plain.*op)(params, stream);
  Spent& each = spent[name];
  each.seconds += std::chrono::duration<double>(Clock::now() - start).count();
  ++each.calls;
}

constexpr const char* const kEmbed = "embed";
constexpr const char* const kNorm = "norm";
constexpr const char* const kMatmul = "matmul";
constexpr const char* const kRope = "rope";
constexpr const char* const kAttention = "attention";
constexpr const char* const kAct = "act";

Backend timed_backend(const Backend& backend) {
  plain = backend;
  Backend all = backend;
  all.embed = timed<&Backend::embed, kEmbed>;
  all.norm = timed<&Backend::norm, kNorm>;
  all.matmul = timed<&Backend::matmul, kMatmul>;
  all.rope = timed<&Backend::rope, kRope>;
  all.attention = timed<&Backend::attention, kAttention>;
  all.act = timed<&Backend::act, kAct>;
  return all;
}

class Steps {
 public:
  Steps(const Backend& backend, MatrixDType dtype, const Options& o, ThreadPool& threads)
      : backend_(backend),
        most_(*std::max_element(o.rows.begin(), o.rows.end())),
        stream_(backend, &threads),
        config_(read_model_config(o.model)),
        checkpoint_(Checkpoint::open(o.model)),
        model_(config_,
               load_model_weights(
                   config_, checkpoint_, backend, stream_.get(), [](uint64_t) { return true; }, dtype),
               backend, stream_.get(), {most_, o.context + most_, o.threads}),
        cache_(KvShape(config_.layers, config_.kv_heads, config_.head_dim,
                       (o.context + most_) / kBlockTokens + 1, backend, DType::kF32),
               backend, stream_.get()),
        batch_({most_, 1, (o.context + most_) / kBlockTokens + 1}, backend),
        kv_(cache_) {
    kv_.reserve(o.context + most_);
    for (int64_t at = 0; at < o.context; at += most_) run(at, std::min(most_, o.context - at));
  }

  void run(int64_t first, int64_t rows) {
    batch_.clear();
    batch_.add_lane(0, 0, first, kv_.blocks());
    for (int64_t row = 0; row < rows; ++row) {
      batch_.add_prompt_row(static_cast<int32_t>(row % config_.vocab), first + row);
      batch_.add_output({});
    }
    batch_.end_lane();
    batch_.upload(stream_.get());
    model_.forward(batch_.batch(), cache_.layers(), batch_.device().output, rows, stream_.get());
  }

  // What a pass reads, once each: the embedding is only looked up in.
  std::vector<Matrix> matrices() const {
    std::vector<Matrix> all;
    for (const LayerWeights& w : model_.weights().layers) {
      for (const Matrix& each : {w.qkv, w.o, w.gate_up, w.down}) all.push_back(each);
    }
    all.push_back(model_.weights().head);
    return all;
  }

 private:
  const Backend backend_;
  int64_t most_;
  BackendStream stream_;
  ModelConfig config_;
  Checkpoint checkpoint_;
  Model model_;
  KvCache cache_;
  RoundBatch batch_;
  KvSequence kv_;
};

}  // namespace

void measure_steps(const std::string& level, const std::string& dtype, const Options& o, ThreadPool& threads,
                   Report& report) {
  const Backend backend = timed_backend(find_backend("cpu:" + level));
  Steps steps(backend, parse_matrix_dtype(dtype), o, threads);
  double bytes = 0.0, macs = 0.0;
  for (const Matrix& w : steps.matrices()) {
    bytes += static_cast<double>(matrix_bytes(w));
    macs += static_cast<double>(w.rows * w.cols);
  }
  report.begin(level, dtype, o.threads, bytes, macs,
               measure_machine(level, steps.matrices(), threads, o.seconds));
  for (const int64_t rows : o.rows) {
    double best = std::numeric_limits<double>::infinity();
    std::map<const char*, Spent> parts;  // of the shortest pass
    shortest(o.seconds, [&] {
      spent.clear();
      const auto start = Clock::now();
      steps.run(o.context, rows);
      const double took = std::chrono::duration<double>(Clock::now() - start).count();
      if (took >= best) return;
      best = took;
      parts = spent;
    });
    report.pass(rows, best);
    for (const auto& [name, part] : parts) report.op(name, part.seconds, part.calls);
  }
}

}  // namespace redrafter::bench
