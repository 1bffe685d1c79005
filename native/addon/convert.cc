#include "addon/convert.h"

#include <cstring>
#include <initializer_list>
#include <iomanip>
#include <sstream>
#include <utility>

namespace redrafter {
namespace {

std::string text_of(const Napi::Object& o, const char* key) { return to_text(o.Get(key)); }

float float_of(const Napi::Object& o, const char* key) {
  REDRAFTER_REQUIRE(o.Get(key).IsNumber(), "ERR_INVALID_ARGUMENT", key, " must be a number");
  return o.Get(key).As<Napi::Number>().FloatValue();
}

// Fresh typed arrays: Electron forbids ArrayBuffers over native memory, and these are a few ids.
template <typename Array, typename T>
Array typed(Napi::Env env, const std::vector<T>& values) {
  Array array = Array::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(T));
  return array;
}

Napi::Array counts(Napi::Env env, const std::vector<int64_t>& values) {
  Napi::Array array = Napi::Array::New(env, values.size());
  for (uint32_t i = 0; i < values.size(); ++i) array.Set(i, static_cast<double>(values[i]));
  return array;
}

using Number = std::pair<const char*, double>;

Napi::Object set_numbers(Napi::Object o, std::initializer_list<Number> numbers) {
  for (const auto& [key, value] : numbers) o.Set(key, value);
  return o;
}

Number count(const char* key, int64_t value) { return {key, static_cast<double>(value)}; }

Napi::Object from_stats(Napi::Env env, const RequestStats& s) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("draftedByDepth", counts(env, s.drafted_by_depth));
  o.Set("acceptedByDepth", counts(env, s.accepted_by_depth));
  return set_numbers(o, {count("promptTokens", s.prompt_tokens),
                         count("reusedTokens", s.reused_tokens),
                         count("tokens", s.tokens),
                         count("rounds", s.rounds),
                         count("droppedTokens", s.dropped_tokens),
                         count("decodedTokens", s.decoded),
                         count("draftedRounds", s.drafted_rounds),
                         count("draftedNodes", s.drafted_nodes),
                         {"queuedMs", s.queued_ms},
                         {"firstTokenMs", s.first_token_ms},
                         {"prefillMs", s.prefill_ms},
                         {"draftMs", s.draft_ms},
                         {"verifyMs", s.verify_ms},
                         {"hostMs", s.host_ms},
                         {"totalMs", s.total_ms}});
}

Napi::Object from_info(Napi::Env env, const ModelInfo& i) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("family", i.family);
  o.Set("architecture", i.architecture);
  o.Set("dtype", i.dtype);
  o.Set("device", i.device);
  o.Set("level", i.level);
  o.Set("deviceReason", from_reason(env, i.device_reason));
  set_numbers(o, {count("vocab", i.vocab), count("hidden", i.hidden), count("layers", i.layers),
                  count("heads", i.heads), count("kvHeads", i.kv_heads), count("headDim", i.head_dim),
                  count("ffn", i.ffn), count("maxPositions", i.max_positions),
                  count("contextTokens", i.context_tokens), count("kvTokens", i.kv_tokens),
                  count("threads", i.threads)});
  std::ostringstream fingerprint;
  fingerprint << std::hex << std::setw(16) << std::setfill('0') << i.fingerprint;
  o.Set("fingerprint", fingerprint.str());
  Napi::Array eos = Napi::Array::New(env, i.eos.size());
  for (uint32_t k = 0; k < i.eos.size(); ++k) eos.Set(k, i.eos[k]);
  o.Set("eosTokenIds", eos);
  o.Set("memory", from_memory(env, i.memory));
  if (!i.has_drafter) {
    o.Set("drafter", env.Null());
    return o;
  }
  Napi::Object drafter = Napi::Object::New(env);
  drafter.Set("cell", i.drafter_cell);
  drafter.Set("format", i.drafter_format);
  o.Set("drafter", set_numbers(drafter, {count("exit", i.drafter_exit), count("blocks", i.drafter_blocks),
                                         count("draftVocab", i.drafter_vocab)}));
  return o;
}

void set_tokens(Napi::Env env, Napi::Object& o, const Message& m) {
  o.Set("ids", typed<Napi::Int32Array>(env, m.ids));
  o.Set("accepted", static_cast<double>(m.accepted));
  o.Set("dropped", static_cast<double>(m.dropped));
  if (!m.has_logprobs) return;
  o.Set("logprobs", typed<Napi::Float32Array>(env, m.logprobs));
  o.Set("topIds", typed<Napi::Int32Array>(env, m.top_ids));
  o.Set("topLogprobs", typed<Napi::Float32Array>(env, m.top_logprobs));
}

}  // namespace

std::string to_text(const Napi::Value& value) {
  return value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string();
}

int64_t to_int(const Napi::Value& value) {
  REDRAFTER_REQUIRE(value.IsNumber(), "ERR_INVALID_ARGUMENT", "expected a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  REDRAFTER_REQUIRE(number == number && number >= -9007199254740992.0 && number <= 9007199254740992.0,
                    "ERR_INVALID_ARGUMENT", "expected a safe integer");
  return static_cast<int64_t>(number);
}

std::vector<int32_t> to_ids(const Napi::Value& value) {
  REDRAFTER_REQUIRE(value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_int32_array,
                    "ERR_INVALID_ARGUMENT", "token ids must be an Int32Array");
  const auto array = value.As<Napi::Int32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

EngineOptions to_engine_options(const Napi::Object& o) {
  EngineOptions options;
  options.model = text_of(o, "model");
  options.drafter = text_of(o, "drafter");
  options.device = text_of(o, "device");
  options.dtype = text_of(o, "dtype");
  options.threads = to_int(o.Get("threads"));
  options.context_tokens = to_int(o.Get("contextTokens"));
  options.kv_tokens = to_int(o.Get("kvTokens"));
  options.prefill_chunk = to_int(o.Get("prefillChunk"));
  options.prefix_cache_bytes = to_int(o.Get("prefixCacheBytes"));
  options.memory_budget_bytes = to_int(o.Get("memoryBudgetBytes"));
  options.max_queued_requests = to_int(o.Get("maxQueuedRequests"));
  options.max_queued_tokens = to_int(o.Get("maxQueuedTokens"));
  REDRAFTER_REQUIRE(options.threads >= 0 && options.threads <= 1024 && options.context_tokens >= 0 &&
                        options.kv_tokens >= 0 && options.prefill_chunk >= 0 &&
                        options.prefill_chunk <= 65536 && options.memory_budget_bytes >= 0,
                    "ERR_INVALID_ARGUMENT", "a number among the options is out of range");
  return options;
}

GenerateOptions to_generate_options(const Napi::Object& o) {
  GenerateOptions g;
  g.max_tokens = to_int(o.Get("maxTokens"));
  g.sample.temperature = float_of(o, "temperature");
  g.sample.top_k = static_cast<int32_t>(to_int(o.Get("topK")));
  g.sample.top_p = float_of(o, "topP");
  g.sample.min_p = float_of(o, "minP");
  bool lossless = false;
  REDRAFTER_REQUIRE(o.Get("seed").IsBigInt(), "ERR_INVALID_ARGUMENT", "seed must be a bigint");
  g.sample.seed = o.Get("seed").As<Napi::BigInt>().Uint64Value(&lossless);
  g.beam_width = to_int(o.Get("beamWidth"));
  g.beam_length = to_int(o.Get("beamLength"));
  g.adaptive = o.Get("adaptive").ToBoolean();
  g.logprobs = to_int(o.Get("logprobs"));
  g.priority = to_int(o.Get("priority"));
  g.deadline_ms = to_int(o.Get("deadlineMs"));
  g.buffer_tokens = to_int(o.Get("bufferTokens"));
  g.slide_keep = to_int(o.Get("slideKeep"));
  g.slide_tail = to_int(o.Get("slideTail"));
  g.eos = to_ids(o.Get("eosTokenIds"));
  g.stop = to_ids(o.Get("stopTokenIds"));
  return g;
}

Napi::Object from_usage(Napi::Env env, const EngineUsage& usage, int64_t session) {
  const auto& [kv, queue] = usage;
  const auto shared = kv.shared_blocks.find(session);
  return set_numbers(
      Napi::Object::New(env),
      {count("totalBlocks", kv.total_blocks), count("freeBlocks", kv.free_blocks),
       count("blockTokens", kv.block_tokens), count("bytesPerBlock", kv.bytes_per_block),
       count("sessions", kv.sessions), count("prefixBlocks", kv.prefix_blocks),
       count("evictedBlocks", kv.evicted_blocks),
       count("sharedBlocks", shared == kv.shared_blocks.end() ? 0 : shared->second),
       count("waitingRequests", queue.waiting_requests), count("waitingTokens", queue.waiting_tokens),
       count("activeRequests", queue.active_requests), count("pausedRequests", queue.paused_requests),
       count("maxQueuedRequests", queue.max_requests), count("maxQueuedTokens", queue.max_tokens)});
}

Napi::Value from_reason(Napi::Env env, const Reason& reason) {
  if (reason.code == nullptr) return env.Null();
  Napi::Object o = Napi::Object::New(env);
  o.Set("code", reason.code);
  o.Set("message", reason.message);
  return o;
}

Napi::Object from_memory(Napi::Env env, const MemoryUse& use) {
  return set_numbers(
      Napi::Object::New(env),
      {count("weightBytes", use.weights), count("drafterBytes", use.drafter), count("kvBytes", use.kv),
       count("workspaceBytes", use.workspace), count("totalBytes", use.total())});
}

Napi::Object from_message(Napi::Env env, const Message& m) {
  static constexpr const char* kNames[] = {"progress", "ready",  "failed", "done",     "error",
                                           "tokens",   "finish", "kv",     "restored", "closed"};
  Napi::Object o = Napi::Object::New(env);
  o.Set("type", kNames[static_cast<size_t>(m.type)]);
  if (m.ticket != 0) o.Set("ticket", static_cast<double>(m.ticket));
  switch (m.type) {
    case MessageType::kProgress:
      o.Set("bytes", static_cast<double>(m.bytes));
      o.Set("totalBytes", static_cast<double>(m.total_bytes));
      break;
    case MessageType::kReady:
      o.Set("info", from_info(env, m.info));
      break;
    case MessageType::kFailed:
    case MessageType::kError:
      o.Set("code", m.code);
      o.Set("message", m.text);
      break;
    case MessageType::kTokens:
      set_tokens(env, o, m);
      break;
    case MessageType::kFinish:
      o.Set("reason", m.reason);
      o.Set("stats", from_stats(env, m.stats));
      [[fallthrough]];
    case MessageType::kDone:
      o.Set("tokens", static_cast<double>(m.tokens));
      o.Set("kvTokens", static_cast<double>(m.kv_tokens));
      break;
    case MessageType::kKv:
      o.Set("data", typed<Napi::Float32Array>(env, m.kv));
      break;
    case MessageType::kRestored:
      o.Set("ids", typed<Napi::Int32Array>(env, m.ids));
      o.Set("kvTokens", static_cast<double>(m.kv_tokens));
      break;
    case MessageType::kClosed:
      break;
  }
  return o;
}

}  // namespace redrafter
