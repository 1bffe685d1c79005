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

Napi::Object from_stats(Napi::Env env, const RequestStats& s) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("promptTokens", static_cast<double>(s.prompt_tokens));
  o.Set("reusedTokens", static_cast<double>(s.reused_tokens));
  o.Set("tokens", static_cast<double>(s.tokens));
  o.Set("rounds", static_cast<double>(s.rounds));
  o.Set("decodedTokens", static_cast<double>(s.decoded));
  o.Set("draftedRounds", static_cast<double>(s.drafted_rounds));
  o.Set("draftedNodes", static_cast<double>(s.drafted_nodes));
  o.Set("draftedByDepth", counts(env, s.drafted_by_depth));
  o.Set("acceptedByDepth", counts(env, s.accepted_by_depth));
  o.Set("firstTokenMs", s.first_token_ms);
  o.Set("prefillMs", s.prefill_ms);
  o.Set("draftMs", s.draft_ms);
  o.Set("verifyMs", s.verify_ms);
  o.Set("hostMs", s.host_ms);
  o.Set("totalMs", s.total_ms);
  return o;
}

Napi::Object from_info(Napi::Env env, const ModelInfo& i) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("family", i.family);
  o.Set("architecture", i.architecture);
  o.Set("dtype", i.dtype);
  o.Set("device", i.device);
  o.Set("level", i.level);
  const std::pair<const char*, int64_t> numbers[] = {{"vocab", i.vocab},
                                                     {"hidden", i.hidden},
                                                     {"layers", i.layers},
                                                     {"heads", i.heads},
                                                     {"kvHeads", i.kv_heads},
                                                     {"headDim", i.head_dim},
                                                     {"ffn", i.ffn},
                                                     {"maxPositions", i.max_positions},
                                                     {"contextTokens", i.context_tokens},
                                                     {"kvTokens", i.kv_tokens},
                                                     {"threads", i.threads}};
  for (const auto& [key, value] : numbers) o.Set(key, static_cast<double>(value));
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
  drafter.Set("exit", static_cast<double>(i.drafter_exit));
  drafter.Set("blocks", static_cast<double>(i.drafter_blocks));
  drafter.Set("draftVocab", static_cast<double>(i.drafter_vocab));
  o.Set("drafter", drafter);
  return o;
}

void set_tokens(Napi::Env env, Napi::Object& o, const Message& m) {
  o.Set("ids", typed<Napi::Int32Array>(env, m.ids));
  o.Set("accepted", static_cast<double>(m.accepted));
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
  options.memory_budget_bytes = to_int(o.Get("memoryBudgetBytes"));
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
  g.eos = to_ids(o.Get("eosTokenIds"));
  g.stop = to_ids(o.Get("stopTokenIds"));
  return g;
}

Napi::Object from_usage(Napi::Env env, const KvUsage& usage) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("totalBlocks", static_cast<double>(usage.total_blocks));
  o.Set("freeBlocks", static_cast<double>(usage.free_blocks));
  o.Set("blockTokens", static_cast<double>(usage.block_tokens));
  o.Set("bytesPerBlock", static_cast<double>(usage.bytes_per_block));
  o.Set("sessions", static_cast<double>(usage.sessions));
  return o;
}

Napi::Object from_memory(Napi::Env env, const MemoryUse& use) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("weightBytes", static_cast<double>(use.weights));
  o.Set("drafterBytes", static_cast<double>(use.drafter));
  o.Set("kvBytes", static_cast<double>(use.kv));
  o.Set("workspaceBytes", static_cast<double>(use.workspace));
  o.Set("totalBytes", static_cast<double>(use.total()));
  return o;
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
