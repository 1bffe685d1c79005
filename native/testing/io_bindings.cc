// native/io as an object `io` for the tests.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/checksum.h"
#include "io/checkpoint.h"
#include "io/config.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/text.h"
#include "testing/testing.h"

namespace redrafter::testing {
namespace {

using Info = Napi::CallbackInfo;

// A copy in a heap block of exactly that size, so that the sanitizer sees a read beyond either end.
std::vector<uint8_t> copy_bytes(const Napi::Value& value) {
  const auto array = value.As<Napi::Uint8Array>();
  return {array.Data(), array.Data() + array.ByteLength()};
}

uint64_t to_u64(const Napi::Value& value) {
  bool lossless = false;
  if (value.IsBigInt()) return value.As<Napi::BigInt>().Uint64Value(&lossless);
  return static_cast<uint64_t>(value.As<Napi::Number>().Int64Value());
}

std::string to_string(const Napi::Value& value) { return value.As<Napi::String>().Utf8Value(); }

Napi::String new_string(Napi::Env env, std::string_view text) {
  return Napi::String::New(env, text.data(), text.size());
}

Napi::Value new_number(Napi::Env env, uint64_t value) {
  return Napi::Number::New(env, static_cast<double>(value));
}

template <typename T>
Napi::Array new_numbers(Napi::Env env, const std::vector<T>& values) {
  auto array = Napi::Array::New(env, values.size());
  for (uint32_t i = 0; i < values.size(); ++i)
    array[i] = Napi::Number::New(env, static_cast<double>(values[i]));
  return array;
}

// Numbers become {number: text, u64: bigint | null, double: number | null}, objects become arrays of [key,
// value] pairs under `members`, so that nothing is lost on the way to a test.
Napi::Value to_js(Napi::Env env, const json::Value& value) {
  switch (value.kind()) {
    case json::Kind::kNull:
      return env.Null();
    case json::Kind::kFalse:
    case json::Kind::kTrue:
      return Napi::Boolean::New(env, value.is(json::Kind::kTrue));
    case json::Kind::kString:
      return new_string(env, value.text());
    case json::Kind::kNumber: {
      auto number = Napi::Object::New(env);
      const auto integer = value.as_u64();
      const auto real = value.as_double();
      number["number"] = new_string(env, value.text());
      number["u64"] = integer ? Napi::BigInt::New(env, *integer) : env.Null();
      number["double"] = real ? Napi::Number::New(env, *real) : env.Null();
      return number;
    }
    case json::Kind::kArray:
    case json::Kind::kObject:
      break;
  }
  auto array = Napi::Array::New(env, value.size());
  uint32_t i = 0;
  for (const json::Value child : value) {
    if (value.is(json::Kind::kArray)) {
      array[i++] = to_js(env, child);
      continue;
    }
    auto pair = Napi::Array::New(env, 2);
    pair[0u] = new_string(env, child.key());
    pair[1u] = to_js(env, child);
    array[i++] = pair;
  }
  if (value.is(json::Kind::kArray)) return array;
  auto object = Napi::Object::New(env);
  object["members"] = array;
  return object;
}

// parseJson(bytes)
Napi::Value parse_json(const Info& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::vector<uint8_t> bytes = copy_bytes(info[0]);
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const json::Document document = json::parse(text, "ERR_CONFIG", "text");
    return to_js(info.Env(), json::root(document));
  });
}

// quote(bytes): what an error message shows of them
Napi::Value quote_bytes(const Info& info) {
  const std::vector<uint8_t> bytes = copy_bytes(info[0]);
  return new_string(info.Env(), quote({reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
}

// parseLength(first 8 bytes, file bytes)
Napi::Value parse_length(const Info& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    uint8_t first[8] = {};
    const std::vector<uint8_t> bytes = copy_bytes(info[0]);
    std::memcpy(first, bytes.data(), std::min(bytes.size(), sizeof first));
    return new_number(info.Env(), parse_safetensors_length(first, to_u64(info[1]), "test"));
  });
}

// parseHeader(header bytes, file bytes)
Napi::Value parse_header(const Info& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    const std::vector<uint8_t> bytes = copy_bytes(info[0]);
    const auto tensors = parse_safetensors_header(bytes.data(), bytes.size(), to_u64(info[1]), "test");
    auto array = Napi::Array::New(env, tensors.size());
    for (uint32_t i = 0; i < tensors.size(); ++i) {
      auto tensor = Napi::Object::New(env);
      tensor["name"] = new_string(env, tensors[i].name);
      tensor["dtype"] = Napi::String::New(env, tensors[i].stored);
      tensor["usable"] = Napi::Boolean::New(env, tensors[i].dtype.has_value());
      tensor["shape"] = new_numbers(env, tensors[i].shape);
      tensor["begin"] = new_number(env, tensors[i].begin);
      tensor["end"] = new_number(env, tensors[i].end);
      array[i] = tensor;
    }
    return array;
  });
}

Napi::Object describe(Napi::Env env, const TensorEntry& entry) {
  auto tensor = Napi::Object::New(env);
  tensor["name"] = new_string(env, entry.name);
  tensor["dtype"] = Napi::String::New(env, dtype_name(entry.dtype));
  tensor["shape"] = new_numbers(env, entry.shape);
  tensor["bytes"] = new_number(env, entry.bytes);
  tensor["file"] = Napi::Number::New(env, entry.file);
  tensor["offset"] = new_number(env, entry.offset);
  return tensor;
}

// checkpoint.read(name, offset, bytes)
Napi::Value read_tensor(const Info& info, const Checkpoint& checkpoint) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const TensorEntry* entry = checkpoint.find(to_string(info[0]));
    if (entry == nullptr) return info.Env().Null();
    std::vector<uint8_t> bytes(static_cast<size_t>(to_u64(info[2])));
    checkpoint.read(*entry, to_u64(info[1]), bytes.data(), bytes.size());
    auto array = Napi::Uint8Array::New(info.Env(), bytes.size());
    if (!bytes.empty()) std::memcpy(array.Data(), bytes.data(), bytes.size());
    return array;
  });
}

// checkpoint.find(name)
Napi::Value find_tensor(const Info& info, const Checkpoint& checkpoint) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const TensorEntry* entry = checkpoint.find(to_string(info[0]));
    if (entry == nullptr) return info.Env().Null();
    return describe(info.Env(), *entry);
  });
}

// openCheckpoint(directory): {tensors, totalBytes, files, find(name), read(name, offset, bytes), close()}
Napi::Value open_checkpoint(const Info& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    auto checkpoint = std::make_shared<std::unique_ptr<Checkpoint>>(
        std::make_unique<Checkpoint>(Checkpoint::open(to_string(info[0]))));
    auto object = Napi::Object::New(env);
    const auto& tensors = (*checkpoint)->tensors();
    auto list = Napi::Array::New(env, tensors.size());
    for (uint32_t i = 0; i < tensors.size(); ++i) list[i] = describe(env, tensors[i]);
    auto files = Napi::Array::New(env);
    for (const std::string& path : (*checkpoint)->files()) files[files.Length()] = new_string(env, path);
    object["tensors"] = list;
    object["files"] = files;
    object["totalBytes"] = new_number(env, (*checkpoint)->total_bytes());
    object["find"] =
        Napi::Function::New(env, [checkpoint](const Info& call) { return find_tensor(call, **checkpoint); });
    object["read"] =
        Napi::Function::New(env, [checkpoint](const Info& call) { return read_tensor(call, **checkpoint); });
    object["close"] = Napi::Function::New(env, [checkpoint](const Info&) { checkpoint->reset(); });
    return object;
  });
}

Napi::Object describe_rope(Napi::Env env, const RopeConfig& rope) {
  const char* const scaling[] = {"none", "linear", "llama3", "yarn"};
  auto object = Napi::Object::New(env);
  object["theta"] = rope.theta;
  object["scaling"] = scaling[static_cast<int>(rope.scaling)];
  object["factor"] = rope.factor;
  object["lowFreqFactor"] = rope.low_freq_factor;
  object["highFreqFactor"] = rope.high_freq_factor;
  object["originalMaxPositions"] = static_cast<double>(rope.original_max_positions);
  object["betaFast"] = rope.beta_fast;
  object["betaSlow"] = rope.beta_slow;
  object["attentionFactor"] = rope.attention_factor;
  object["mscale"] = rope.mscale;
  object["mscaleAllDim"] = rope.mscale_all_dim;
  object["truncate"] = rope.truncate;
  return object;
}

// readModelConfig(directory)
Napi::Value model_config(const Info& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    const ModelConfig config = read_model_config(to_string(info[0]));
    auto object = Napi::Object::New(env);
    const auto set = [&](const char* key, int64_t value) { object[key] = static_cast<double>(value); };
    object["architecture"] = config.architecture;
    object["family"] = config.family;
    set("vocab", config.vocab);
    set("hidden", config.hidden);
    set("layers", config.layers);
    set("heads", config.heads);
    set("kvHeads", config.kv_heads);
    set("headDim", config.head_dim);
    set("ffn", config.ffn);
    set("maxPositions", config.max_positions);
    set("slidingWindow", config.sliding_window);
    object["normEps"] = config.norm_eps;
    object["tiedEmbeddings"] = config.tied_embeddings;
    object["qkvBias"] = config.qkv_bias;
    object["oBias"] = config.o_bias;
    object["mlpBias"] = config.mlp_bias;
    object["qkNorm"] = config.qk_norm;
    object["rope"] = describe_rope(env, config.rope);
    object["eos"] = new_numbers(env, config.eos);
    return object;
  });
}

// readDrafterConfig(directory)
Napi::Value drafter_config(const Info& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const DrafterConfig config = read_drafter_config(to_string(info[0]));
    auto object = Napi::Object::New(info.Env());
    object["cell"] = cell_name(config.cell);
    object["appleFormat"] = config.apple_format;
    object["vocab"] = static_cast<double>(config.vocab);
    object["hidden"] = static_cast<double>(config.hidden);
    object["exit"] = static_cast<double>(config.exit);
    object["blocks"] = static_cast<double>(config.blocks);
    return object;
  });
}

// failRead(n): the n-th file read from now fails; 0 turns it off
void fail_read(const Info& info) { fail_read_for_tests(info[0].As<Napi::Number>().Int64Value()); }

// writeFile(path, pieces, failAt, commits): writes pieces, the failAt-th write failing; 0 for none
void write_file(const Info& info) {
  guarded(info.Env(), [&] {
    fail_write_for_tests(info[2].As<Napi::Number>().Int64Value());
    FileWriter file(to_string(info[0]));
    const auto pieces = info[1].As<Napi::Array>();
    for (uint32_t i = 0; i < pieces.Length(); ++i) {
      const std::vector<uint8_t> bytes = copy_bytes(pieces.Get(i));
      file.write(bytes.data(), bytes.size());
    }
    if (info[3].As<Napi::Boolean>().Value()) file.commit();
  });
}

// checksum(pieces): XXH64 of their concatenation
Napi::Value checksum(const Info& info) {
  Checksum sum;
  const auto pieces = info[0].As<Napi::Array>();
  for (uint32_t i = 0; i < pieces.Length(); ++i) {
    const std::vector<uint8_t> bytes = copy_bytes(pieces.Get(i));
    sum.update(bytes.data(), bytes.size());
  }
  return Napi::BigInt::New(info.Env(), sum.value());
}

}  // namespace

void add_io(Napi::Env env, Napi::Object exports) {
  auto io = Napi::Object::New(env);
  io["parseJson"] = Napi::Function::New(env, parse_json);
  io["quote"] = Napi::Function::New(env, quote_bytes);
  io["parseLength"] = Napi::Function::New(env, parse_length);
  io["parseHeader"] = Napi::Function::New(env, parse_header);
  io["openCheckpoint"] = Napi::Function::New(env, open_checkpoint);
  io["readModelConfig"] = Napi::Function::New(env, model_config);
  io["readDrafterConfig"] = Napi::Function::New(env, drafter_config);
  io["failRead"] = Napi::Function::New(env, fail_read);
  io["writeFile"] = Napi::Function::New(env, write_file);
  io["checksum"] = Napi::Function::New(env, checksum);
  exports["io"] = io;
}

}  // namespace redrafter::testing
