#include "addon/convert.h"

#include <cstring>
#include <iomanip>
#include <sstream>

namespace redrafter {
namespace {

std::string text_of(const Napi::Object& o, const char* key) { return to_text(o.Get(key)); }

float float_of(const Napi::Object& o, const char* key) {
  REDRAFTER_REQUIRE(o.Get(key).IsNumber(), "ERR_INVALID_ARGUMENT", key, " must be a number");
  return o.Get(key).As<Napi::Number>().FloatValue();
}

struct Integer {
  const char* key;
  int64_t* to;
};
void read_integers(const Napi::Object& o, std::initializer_list<Integer> all) {
  for (const auto& [key, to] : all) *to = to_int(o.Get(key));
}
Integer integer(const char* key, int64_t& to) { return {key, &to}; }

template <typename T, napi_typedarray_type type>
std::vector<T> elements(const Napi::Value& value, const char* wrong) {
  REDRAFTER_REQUIRE(value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == type,
                    "ERR_INVALID_ARGUMENT", wrong);
  const auto array = value.As<Napi::TypedArrayOf<T>>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

// Fresh typed arrays: Electron forbids ArrayBuffers over native memory, and these are a few ids.
template <typename Array, typename T>
Array typed(Napi::Env env, const std::vector<T>& values) {
  Array array = Array::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(T));
  return array;
}

Napi::Object from_stats(Napi::Env env, const RequestStats& s) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("draftedByDepth", array_of(env, s.drafted_by_depth));
  o.Set("acceptedByDepth", array_of(env, s.accepted_by_depth));
  return set_numbers(
      o, {number("promptTokens", s.prompt_tokens), number("reusedTokens", s.reused_tokens),
          number("tokens", s.tokens), number("rounds", s.rounds), number("droppedTokens", s.dropped_tokens),
          number("decodedTokens", s.decoded), number("draftedRounds", s.drafted_rounds),
          number("draftedNodes", s.drafted_nodes), number("queuedMs", s.queued_ms),
          number("firstTokenMs", s.first_token_ms), number("prefillMs", s.prefill_ms),
          number("draftMs", s.draft_ms), number("verifyMs", s.verify_ms), number("hostMs", s.host_ms),
          number("totalMs", s.total_ms)});
}

Napi::Object from_info(Napi::Env env, const ModelInfo& i) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("family", i.family);
  o.Set("architecture", i.architecture);
  o.Set("dtype", i.dtype);
  o.Set("device", i.device);
  o.Set("level", i.level);
  o.Set("deviceReason", from_reason(env, i.device_reason));
  set_numbers(o, {number("vocab", i.vocab), number("hidden", i.hidden), number("layers", i.layers),
                  number("heads", i.heads), number("kvHeads", i.kv_heads), number("headDim", i.head_dim),
                  number("ffn", i.ffn), number("maxPositions", i.max_positions),
                  number("contextTokens", i.context_tokens), number("kvTokens", i.kv_tokens),
                  number("threads", i.threads)});
  std::ostringstream fingerprint;
  fingerprint << std::hex << std::setw(16) << std::setfill('0') << i.fingerprint;
  o.Set("fingerprint", fingerprint.str());
  o.Set("eosTokenIds", array_of(env, i.eos));
  o.Set("memory", from_memory(env, i.memory));
  if (!i.has_drafter) {
    o.Set("drafter", env.Null());
    return o;
  }
  Napi::Object drafter = Napi::Object::New(env);
  drafter.Set("cell", i.drafter_cell);
  drafter.Set("format", i.drafter_format);
  drafter.Set("dtype", i.drafter_dtype);
  o.Set("drafter", set_numbers(drafter, {number("exit", i.drafter_exit), number("blocks", i.drafter_blocks),
                                         number("draftVocab", i.drafter_vocab)}));
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

Napi::Object set_numbers(Napi::Object o, std::initializer_list<Number> numbers) {
  for (const auto& [key, value] : numbers) o.Set(key, value);
  return o;
}

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

Napi::Value from_ids(Napi::Env env, const std::vector<int32_t>& ids) {
  return typed<Napi::Int32Array>(env, ids);
}

std::vector<int32_t> to_ids(const Napi::Value& value) {
  return elements<int32_t, napi_int32_array>(value, "token ids must be an Int32Array");
}

EngineOptions to_engine_options(const Napi::Object& o) {
  EngineOptions options;
  options.model = text_of(o, "model");
  options.drafter = text_of(o, "drafter");
  options.device = text_of(o, "device");
  options.dtype = text_of(o, "dtype");
  options.drafter_dtype = text_of(o, "drafterDtype");
  read_integers(o, {integer("threads", options.threads), integer("contextTokens", options.context_tokens),
                    integer("kvTokens", options.kv_tokens), integer("prefillChunk", options.prefill_chunk),
                    integer("prefixCacheBytes", options.prefix_cache_bytes),
                    integer("memoryBudgetBytes", options.memory_budget_bytes),
                    integer("maxActiveRequests", options.max_active_requests),
                    integer("maxQueuedRequests", options.max_queued_requests),
                    integer("maxQueuedTokens", options.max_queued_tokens)});
  REDRAFTER_REQUIRE(options.threads >= 0 && options.threads <= 1024 && options.context_tokens >= 0 &&
                        options.kv_tokens >= 0 && options.prefill_chunk >= 0 &&
                        options.prefill_chunk <= 65536 && options.memory_budget_bytes >= 0,
                    "ERR_INVALID_ARGUMENT", "a number among the options is out of range");
  return options;
}

GenerateOptions to_generate_options(const Napi::Object& o) {
  GenerateOptions g;
  read_integers(o, {integer("maxTokens", g.max_tokens), integer("beamWidth", g.beam_width),
                    integer("beamLength", g.beam_length), integer("logprobs", g.logprobs),
                    integer("priority", g.priority), integer("deadlineMs", g.deadline_ms),
                    integer("bufferTokens", g.buffer_tokens), integer("slideKeep", g.slide_keep),
                    integer("slideTail", g.slide_tail)});
  g.matcher = static_cast<int32_t>(to_int(o.Get("matcher")));
  g.sample.temperature = float_of(o, "temperature");
  g.sample.top_k = static_cast<int32_t>(to_int(o.Get("topK")));
  g.sample.top_p = float_of(o, "topP");
  g.sample.min_p = float_of(o, "minP");
  bool lossless = false;
  REDRAFTER_REQUIRE(o.Get("seed").IsBigInt(), "ERR_INVALID_ARGUMENT", "seed must be a bigint");
  g.sample.seed = o.Get("seed").As<Napi::BigInt>().Uint64Value(&lossless);
  g.control = {float_of(o, "repetitionPenalty"),
               float_of(o, "presencePenalty"),
               float_of(o, "frequencyPenalty"),
               to_int(o.Get("minTokens")),
               to_ids(o.Get("bannedTokenIds")),
               to_ids(o.Get("biasTokenIds")),
               elements<float, napi_float32_array>(o.Get("biases"), "biases must be a Float32Array")};
  g.adaptive = o.Get("adaptive").ToBoolean();
  g.eos = to_ids(o.Get("eosTokenIds"));
  g.stop = to_ids(o.Get("stopTokenIds"));
  return g;
}

Napi::Object from_usage(Napi::Env env, const EngineUsage& usage, int64_t session) {
  const auto& [kv, queue] = usage;
  const auto shared = kv.shared_blocks.find(session);
  return set_numbers(
      Napi::Object::New(env),
      {number("totalBlocks", kv.total_blocks), number("freeBlocks", kv.free_blocks),
       number("blockTokens", kv.block_tokens), number("bytesPerBlock", kv.bytes_per_block),
       number("sessions", kv.sessions), number("prefixBlocks", kv.prefix_blocks),
       number("evictedBlocks", kv.evicted_blocks),
       number("sharedBlocks", shared == kv.shared_blocks.end() ? 0 : shared->second),
       number("waitingRequests", queue.waiting_requests), number("waitingTokens", queue.waiting_tokens),
       number("activeRequests", queue.active_requests), number("pausedRequests", queue.paused_requests),
       number("maxQueuedRequests", queue.max_requests), number("maxQueuedTokens", queue.max_tokens)});
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
      {number("weightBytes", use.weights), number("drafterBytes", use.drafter), number("kvBytes", use.kv),
       number("workspaceBytes", use.workspace), number("totalBytes", use.total())});
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
      set_numbers(o, {number("tokens", m.tokens), number("kvTokens", m.kv_tokens),
                      number("reusedTokens", m.stats.reused_tokens)});
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
