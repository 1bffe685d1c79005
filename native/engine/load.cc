// Loading: the first thing the engine thread does.
#include <algorithm>
#include <chrono>

#include "engine/engine_thread.h"
#include "model/fingerprint.h"
#include "spec/measure.h"

namespace redrafter {
namespace {

// Progress is posted at most this often: a load of many small tensors must not flood the host.
constexpr auto kProgressInterval = std::chrono::milliseconds(50);
constexpr int64_t kDefaultQueuedRequests = 1024;

// What finding out what rounds cost may add to a load.
constexpr double kMeasureMs = 1500.0;

}  // namespace

void EngineThread::load() {
  const LoadPlan plan = plan_load(engine_.options_);
  require_memory(plan);
  backend_ = &plan.backend;
  threads_ = std::make_unique<ThreadPool>(static_cast<int>(plan.limits.threads));
  stream_ = std::make_unique<BackendStream>(*backend_, threads_.get());
  Stream& stream = stream_->get();
  context_tokens_ = plan.limits.positions;
  prompt_chunk_ = plan.prefill_chunk;
  if (engine_.options_.max_active_requests > 0) max_active_ = engine_.options_.max_active_requests;
  const auto [requests, tokens] =
      std::pair(engine_.options_.max_queued_requests, engine_.options_.max_queued_tokens);
  engine_.queue_.set(requests > 0 ? requests : kDefaultQueuedRequests,
                     tokens > 0 ? tokens : 4 * plan.kv_tokens);

  const int64_t total = static_cast<int64_t>(plan.checkpoint.total_bytes() +
                                             (plan.drafter.empty() ? 0 : drafter_bytes(plan.drafter)));
  int64_t loaded_bytes = 0;
  auto last_post = std::chrono::steady_clock::now();
  const LoadProgress progress = [&](uint64_t bytes) {
    loaded_bytes += static_cast<int64_t>(bytes);
    const auto now = std::chrono::steady_clock::now();
    if (now - last_post >= kProgressInterval) {
      last_post = now;
      Message message(MessageType::kProgress);
      message.bytes = std::min(loaded_bytes, total);
      message.total_bytes = total;
      post(std::move(message));
      flush();
    }
    return !engine_.closing_.load();
  };

  LoadedWeights loaded = load_weights(plan, *backend_, stream, progress);
  const MemoryUse memory = memory_use(plan, loaded);
  model_ = std::move(loaded.model);
  drafter_ = std::move(loaded.drafter);
  cache_ = std::make_unique<KvCache>(plan.kv, *backend_, stream);
  const int64_t idle_bytes = engine_.options_.prefix_cache_bytes;
  prefixes_ = std::make_unique<PrefixIndex>(
      *cache_, idle_bytes < 0 ? plan.kv.blocks : idle_bytes / cache_->bytes_per_block());
  const std::string level = std::string(backend_->name) + ":" + backend_->level;
  origin_ = {model_fingerprint(plan.config, model_->weights()),
             std::string(REDRAFTER_VERSION) + " " + level + " " + dtype_name(plan.kv.layout.dtype)};
  load_planner();
  round_ = std::make_unique<Round>(*model_, *cache_, drafter_.get(), stream, engine_.masks_.get());
  post_ready(plan, memory);
}

// Costs are measured while nobody has a session, whose blocks they would write to.
void EngineThread::load_planner() {
  if (drafter_ == nullptr) return;
  const MakePlanner make = planners_made_with();
  const auto measure = [this] {
    return measure_costs(*model_, *cache_, *drafter_, stream_->get(), kMeasureMs,
                         [this] { return !engine_.closing_.load(); });
  };
  auto planner = make != nullptr ? make() : std::make_unique<Planner>(measure());
  adaptive_ = std::make_unique<AdaptiveDrafting>(std::move(planner), backend_->host_memory);
}

void EngineThread::post_ready(const LoadPlan& plan, const MemoryUse& memory) {
  const ModelConfig& c = plan.config;
  Message message(MessageType::kReady);
  ModelInfo& info = message.info;
  info.family = c.family;
  info.architecture = c.architecture;
  info.dtype = matrix_dtype_name(model_->weights());
  info.device = backend_->name;
  info.level = backend_->level;
  info.device_reason = plan.device_reason;
  info.vocab = c.vocab, info.hidden = c.hidden, info.layers = c.layers, info.heads = c.heads;
  info.kv_heads = c.kv_heads, info.head_dim = c.head_dim, info.ffn = c.ffn,
  info.max_positions = c.max_positions;
  info.context_tokens = plan.limits.positions;
  info.kv_tokens = plan.kv_tokens;
  info.threads = threads_->size();
  info.fingerprint = origin_.fingerprint;
  info.eos = c.eos;
  info.memory = memory;
  if (drafter_ != nullptr) {
    const RecurrentWeights& r = drafter_->weights();
    info.has_drafter = true;
    info.drafter_cell = cell_name(r.config.cell);
    info.drafter_dtype = matrix_dtype_name(r);
    info.drafter_format = r.config.apple_format ? "apple" : "redrafter";
    info.drafter_exit = r.config.exit;
    info.drafter_blocks = r.config.blocks;
    info.drafter_vocab = r.head.rows;
  }
  post(std::move(message));
}

}  // namespace redrafter
