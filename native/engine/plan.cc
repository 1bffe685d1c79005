#include "engine/plan.h"

#include <algorithm>
#include <thread>

#include "base/check.h"
#include "base/quant.h"
#include "spec/round.h"

namespace redrafter {
namespace {

constexpr int64_t kDefaultContextTokens = 4096;
constexpr int64_t kDefaultPrefillChunk = 256;
constexpr int64_t kMaxTree = max_tree_nodes(kMaxBeamWidth, kMaxBeamLength);

int64_t default_threads() {
  return std::clamp<int64_t>(static_cast<int64_t>(std::thread::hardware_concurrency()), 1, 64);
}

// Only the CPU backend shares its work among threads.
int64_t threads_for(const Backend& backend, int64_t asked) {
  if (!backend.host_memory) return 1;
  return asked > 0 ? asked : default_threads();
}

// What the option `key` asks for, of the weights in `directory`, which are stored as `stored` if quantised.
MatrixDType asked_dtype(const Backend& backend, const EngineOptions& options, const char* key,
                        const std::string& name, const std::string& directory, MatrixDType stored) {
  const MatrixDType dtype = parse_matrix_dtype(name);
  REDRAFTER_REQUIRE(!dtype || !stored || dtype == stored, "ERR_INVALID_ARGUMENT", "the weights in ",
                    directory, " are stored as ", dtype_name(stored.value_or(DType::kQ8_0)),
                    ", which cannot be loaded as ", name, "; leave ", key, " \"auto\"");
  REDRAFTER_REQUIRE(!dtype || backend.takes(*dtype), "ERR_INVALID_ARGUMENT", "device \"", options.device,
                    "\" has no matrices of dtype \"", name, "\"; load with ", key,
                    " \"bf16\" or \"f16\", or with device \"cpu\"");
  return dtype;
}

MatrixDType drafter_dtype_for(const Backend& backend, const EngineOptions& options, MatrixDType target) {
  const std::string& name = options.drafter_dtype;
  if (options.drafter.empty()) return std::nullopt;
  const MatrixDType asked = asked_dtype(backend, options, "drafterDtype", name, options.drafter,
                                        read_drafter_config(options.drafter).quantised);
  return asked ? asked : drafter_dtype(backend, options.drafter, target);
}

int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

// Beside the tokens, one draft tree of the largest shape fits the cache.
int64_t cache_blocks(int64_t kv_tokens) { return blocks_for(kv_tokens) + blocks_for(kMaxTree); }

MemoryUse measure(const LoadPlan& plan) {
  const Backend backend = measuring(plan.backend);
  BackendStream stream(backend, nullptr);
  return memory_use(plan, load_weights(plan, backend, stream.get(), [](uint64_t) { return true; }));
}

[[noreturn]] void fail_budget(const EngineOptions& options, const LoadPlan& plan) {
  const MemoryUse& use = plan.memory;
  const bool asked = options.kv_tokens > 0;
  fail("ERR_OOM", "memoryBudgetBytes is ", options.memory_budget_bytes, ", but the model needs ", use.total(),
       ": weights ", use.weights, ", drafter ", use.drafter, ", KV cache ", use.kv, " (",
       asked ? "kvTokens" : "one session of contextTokens", " = ", plan.kv_tokens, "), workspace ",
       use.workspace, "; raise it, or lower ", asked ? "kvTokens, " : "",
       "contextTokens, prefillChunk or threads, or load with a dtype of 16 bits or without a drafter");
}

// The cache gets what the rest of the model leaves of the budget: at least one full session, at most the
// default. Nothing else depends on its size.
void fit_budget(const EngineOptions& options, LoadPlan& plan) {
  const int64_t budget = options.memory_budget_bytes;
  if (budget == 0 || plan.memory.total() <= budget) return;
  if (options.kv_tokens > 0) fail_budget(options, plan);
  const int64_t rest = budget - (plan.memory.total() - plan.memory.kv);
  const int64_t blocks = std::max<int64_t>(rest, 0) / plan.kv.bytes_per_block() - cache_blocks(0);
  plan.kv_tokens = std::max(blocks * kBlockTokens, plan.limits.positions);
  plan.kv.blocks = cache_blocks(plan.kv_tokens);
  plan.memory.kv = plan.kv.bytes();
  if (plan.memory.total() > budget) fail_budget(options, plan);
}

}  // namespace

LoadPlan plan_on(const EngineOptions& options, const Backend& backend) {
  const ModelConfig config = read_model_config(options.model);
  const MatrixDType dtype =
      asked_dtype(backend, options, "dtype", options.dtype, options.model, config.quantised);
  const int64_t context_tokens = options.context_tokens > 0
                                     ? options.context_tokens
                                     : std::min(config.max_positions, kDefaultContextTokens);
  REDRAFTER_REQUIRE(context_tokens <= config.max_positions, "ERR_INVALID_ARGUMENT", "contextTokens is ",
                    context_tokens, ", but the model's positions end at ", config.max_positions);
  const int64_t kv_tokens = options.kv_tokens > 0 ? options.kv_tokens : 4 * context_tokens;
  const int64_t prefill_chunk = options.prefill_chunk > 0 ? options.prefill_chunk : kDefaultPrefillChunk;
  const int64_t threads = threads_for(backend, options.threads);
  Checkpoint checkpoint = Checkpoint::open(options.model);
  const TensorEntry* embedding = checkpoint.find("model.embed_tokens.weight");
  const DType stored = config.quantised       ? *config.quantised
                       : embedding == nullptr ? DType::kF32  // loading will say that it is missing
                                              : embedding->dtype;
  LoadPlan plan = {backend,
                   dtype,
                   config,
                   std::move(checkpoint),
                   options.drafter,
                   drafter_dtype_for(backend, options, dtype ? dtype : config.quantised),
                   {std::max(kMaxTree, prefill_chunk), context_tokens, threads},
                   kv_tokens,
                   prefill_chunk,
                   KvShape(config.layers, config.kv_heads, config.head_dim, cache_blocks(kv_tokens), backend,
                           matrix_dtype(backend, dtype, stored)),
                   {}};
  plan.memory = measure(plan);
  fit_budget(options, plan);
  return plan;
}

LoadedWeights load_weights(const LoadPlan& plan, const Backend& backend, Stream& stream,
                           const LoadProgress& progress) {
  LoadedWeights loaded;
  loaded.model = std::make_unique<Model>(
      plan.config, load_model_weights(plan.config, plan.checkpoint, backend, stream, progress, plan.dtype),
      backend, stream, plan.limits);
  if (!plan.drafter.empty()) {
    loaded.drafter = std::make_unique<RecurrentDrafter>(
        load_recurrent_weights(plan.drafter, plan.config, backend, stream, progress, plan.drafter_dtype),
        loaded.model->weights().embedding, backend, stream);
  }
  return loaded;
}

MemoryUse memory_use(const LoadPlan& plan, const LoadedWeights& loaded) {
  MemoryUse use;
  use.weights = loaded.model->weights().bytes;
  use.kv = plan.kv.bytes();
  use.workspace =
      loaded.model->workspace_bytes() + Round::workspace_bytes(*loaded.model) + plan.backend.stream_bytes;
  if (loaded.drafter != nullptr) {
    use.drafter = loaded.drafter->weight_bytes();
    use.workspace += loaded.drafter->workspace_bytes();
  }
  return use;
}

}  // namespace redrafter
