// inspect(directory): configuration and tensor headers, no weights.
#include <memory>
#include <optional>

#include "addon/background.h"
#include "addon/convert.h"
#include "base/cell.h"
#include "io/checkpoint.h"
#include "io/config.h"

namespace redrafter {
namespace {

// By RopeScaling.
constexpr const char* kScalingNames[] = {"none", "linear", "llama3", "yarn"};

Napi::Object from_model(Napi::Env env, const ModelConfig& c) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("architecture", c.architecture);
  o.Set("family", c.family);
  const std::pair<const char*, int64_t> numbers[] = {{"vocab", c.vocab},
                                                     {"hidden", c.hidden},
                                                     {"layers", c.layers},
                                                     {"heads", c.heads},
                                                     {"kvHeads", c.kv_heads},
                                                     {"headDim", c.head_dim},
                                                     {"ffn", c.ffn},
                                                     {"maxPositions", c.max_positions},
                                                     {"slidingWindow", c.sliding_window}};
  for (const auto& [key, value] : numbers) o.Set(key, static_cast<double>(value));
  o.Set("normEps", c.norm_eps);
  o.Set("ropeTheta", c.rope.theta);
  o.Set("ropeScaling", kScalingNames[static_cast<size_t>(c.rope.scaling)]);
  o.Set("ropeFactor", c.rope.factor);
  o.Set("tiedEmbeddings", c.tied_embeddings);
  o.Set("qkvBias", c.qkv_bias);
  o.Set("qkNorm", c.qk_norm);
  Napi::Array eos = Napi::Array::New(env, c.eos.size());
  for (uint32_t i = 0; i < c.eos.size(); ++i) eos.Set(i, c.eos[i]);
  o.Set("eosTokenIds", eos);
  return o;
}

Napi::Object from_drafter(Napi::Env env, const DrafterConfig& c) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("cell", cell_name(c.cell));
  o.Set("format", c.apple_format ? "apple" : "redrafter");
  o.Set("vocab", static_cast<double>(c.vocab));
  o.Set("hidden", static_cast<double>(c.hidden));
  o.Set("exit", static_cast<double>(c.exit));
  o.Set("blocks", static_cast<double>(c.blocks));
  return o;
}

// A drafter's config.json names its model type, so it is asked first; the model's error is the one to show.
std::optional<DrafterConfig> drafter_config(const std::string& directory) {
  try {
    return read_drafter_config(directory);
  } catch (const Error&) {
    return std::nullopt;
  }
}

Napi::Array from_tensors(Napi::Env env, const Checkpoint& checkpoint) {
  Napi::Array tensors = Napi::Array::New(env, checkpoint.tensors().size());
  uint32_t i = 0;
  for (const TensorEntry& tensor : checkpoint.tensors()) {
    Napi::Object o = Napi::Object::New(env);
    o.Set("name", tensor.name);
    o.Set("dtype", dtype_name(tensor.dtype));
    Napi::Array shape = Napi::Array::New(env, tensor.shape.size());
    for (uint32_t d = 0; d < tensor.shape.size(); ++d) shape.Set(d, static_cast<double>(tensor.shape[d]));
    o.Set("shape", shape);
    o.Set("bytes", static_cast<double>(tensor.bytes));
    o.Set("file", checkpoint.files()[static_cast<size_t>(tensor.file)]);
    tensors.Set(i++, o);
  }
  return tensors;
}

}  // namespace

Napi::Value inspect(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    REDRAFTER_REQUIRE(info[0].IsString(), "ERR_INVALID_ARGUMENT", "inspect takes a directory");
    return in_background(info.Env(), [directory = info[0].As<Napi::String>().Utf8Value()]() -> Deliver {
      const std::optional<DrafterConfig> drafter = drafter_config(directory);
      const ModelConfig model = drafter ? ModelConfig() : read_model_config(directory);
      const auto checkpoint = std::make_shared<const Checkpoint>(Checkpoint::open(directory));
      return [drafter, model, checkpoint](Napi::Env env) -> Napi::Value {
        Napi::Object o = Napi::Object::New(env);
        o.Set("kind", drafter ? "drafter" : "model");
        o.Set("config", drafter ? from_drafter(env, *drafter) : from_model(env, model));
        Napi::Array files = Napi::Array::New(env, checkpoint->files().size());
        for (uint32_t i = 0; i < checkpoint->files().size(); ++i) files.Set(i, checkpoint->files()[i]);
        o.Set("files", files);
        o.Set("tensors", from_tensors(env, *checkpoint));
        o.Set("totalBytes", static_cast<double>(checkpoint->total_bytes()));
        return o;
      };
    });
  });
}

}  // namespace redrafter
