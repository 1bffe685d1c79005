// Loading: the first thing the engine thread does.
#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "engine/engine_thread.h"
#include "model/fingerprint.h"
#include "spec/drafters/recurrent.h"

namespace redrafter {
namespace {

constexpr int64_t kDefaultContextTokens = 4096;
constexpr int64_t kDefaultPrefillChunk = 256;

int64_t default_threads() {
  return std::clamp<int64_t>(static_cast<int64_t>(std::thread::hardware_concurrency()), 1, 64);
}

// Progress is posted at most this often: a load of many small tensors must not flood the host.
constexpr auto kProgressInterval = std::chrono::milliseconds(50);

}  // namespace

void EngineThread::load() {
  const EngineOptions& options = engine_.options_;
  backend_ = &find_backend(options.device);
  threads_ = std::make_unique<ThreadPool>(
      static_cast<int>(options.threads > 0 ? options.threads : default_threads()));
  stream_.threads = threads_.get();

  const ModelConfig config = read_model_config(options.model);
  context_tokens_ = options.context_tokens > 0 ? options.context_tokens
                                               : std::min(config.max_positions, kDefaultContextTokens);
  REDRAFTER_REQUIRE(context_tokens_ <= config.max_positions, "ERR_INVALID_ARGUMENT", "contextTokens is ",
                    context_tokens_, ", but the model's positions end at ", config.max_positions);
  kv_tokens_ = options.kv_tokens > 0 ? options.kv_tokens : 4 * context_tokens_;
  const int64_t prefill_chunk = options.prefill_chunk > 0 ? options.prefill_chunk : kDefaultPrefillChunk;

  const Checkpoint checkpoint = Checkpoint::open(options.model);
  const int64_t total = static_cast<int64_t>(checkpoint.total_bytes() +
                                             (options.drafter.empty() ? 0 : drafter_bytes(options.drafter)));
  int64_t loaded = 0;
  auto last_post = std::chrono::steady_clock::now();
  const LoadProgress progress = [&](uint64_t bytes) {
    loaded += static_cast<int64_t>(bytes);
    const auto now = std::chrono::steady_clock::now();
    if (now - last_post >= kProgressInterval) {
      last_post = now;
      Message message(MessageType::kProgress);
      message.bytes = std::min(loaded, total);
      message.total_bytes = total;
      post(std::move(message));
      flush();
    }
    return !engine_.closing_.load();
  };

  ModelWeights weights = load_model_weights(config, checkpoint, *backend_, stream_, progress);
  const ForwardLimits limits{std::max(max_tree_nodes(kMaxBeamWidth, kMaxBeamLength), prefill_chunk),
                             context_tokens_};
  model_ = std::make_unique<Model>(config, std::move(weights), *backend_, stream_, limits);
  if (!options.drafter.empty()) {
    drafter_ = std::make_unique<RecurrentDrafter>(
        load_recurrent_weights(options.drafter, config, *backend_, stream_, progress),
        model_->weights().embedding, *backend_, stream_);
  }
  const int64_t blocks = (kv_tokens_ + kBlockTokens - 1) / kBlockTokens +
                         (max_tree_nodes(kMaxBeamWidth, kMaxBeamLength) + kBlockTokens - 1) / kBlockTokens;
  cache_ = std::make_unique<KvCache>(KvShape{config.layers, config.kv_heads, config.head_dim, blocks},
                                     *backend_, stream_);
  origin_ = {model_fingerprint(config, model_->weights()),
             std::string(REDRAFTER_VERSION) + " " + backend_->name + ":" + backend_->level};
  round_ = std::make_unique<Round>(*model_, *cache_, drafter_.get(), stream_, prefill_chunk);
  post_ready(options.drafter);
}

void EngineThread::post_ready(const std::string& drafter_directory) {
  const ModelConfig& c = model_->config();
  Message message(MessageType::kReady);
  ModelInfo& info = message.info;
  info.family = c.family;
  info.architecture = c.architecture;
  info.dtype = dtype_name(model_->weights().layers.front().qkv.dtype);
  info.device = backend_->name;
  info.level = backend_->level;
  info.vocab = c.vocab, info.hidden = c.hidden, info.layers = c.layers, info.heads = c.heads;
  info.kv_heads = c.kv_heads, info.head_dim = c.head_dim, info.ffn = c.ffn,
  info.max_positions = c.max_positions;
  info.context_tokens = context_tokens_;
  info.kv_tokens = kv_tokens_;
  info.threads = threads_->size();
  info.fingerprint = origin_.fingerprint;
  info.eos = c.eos;
  info.weight_bytes = model_->weights().bytes;
  info.kv_bytes = cache_->bytes_per_block() * cache_->shape().blocks;
  info.workspace_bytes = model_->workspace_bytes();
  if (!drafter_directory.empty()) {
    const auto& r = static_cast<const RecurrentDrafter&>(*drafter_).weights();
    info.has_drafter = true;
    info.drafter_cell = cell_name(r.config.cell);
    info.drafter_format = r.config.apple_format ? "apple" : "redrafter";
    info.drafter_exit = r.config.exit;
    info.drafter_blocks = r.config.blocks;
    info.drafter_vocab = r.head.rows;
    info.drafter_weight_bytes = r.bytes;
    info.workspace_bytes += drafter_->workspace_bytes();
  }
  post(std::move(message));
}

}  // namespace redrafter
