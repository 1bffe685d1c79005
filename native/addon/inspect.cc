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
  set_numbers(o, {number("vocab", c.vocab), number("hidden", c.hidden), number("layers", c.layers),
                  number("heads", c.heads), number("kvHeads", c.kv_heads), number("headDim", c.head_dim),
                  number("ffn", c.ffn), number("maxPositions", c.max_positions),
                  number("slidingWindow", c.sliding_window)});
  o.Set("normEps", c.norm_eps);
  o.Set("ropeTheta", c.rope.theta);
  o.Set("ropeScaling", kScalingNames[static_cast<size_t>(c.rope.scaling)]);
  o.Set("ropeFactor", c.rope.factor);
  o.Set("tiedEmbeddings", c.tied_embeddings);
  o.Set("qkvBias", c.qkv_bias);
  o.Set("qkNorm", c.qk_norm);
  o.Set("eosTokenIds", array_of(env, c.eos));
  return o;
}

Napi::Object from_drafter(Napi::Env env, const DrafterConfig& c) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("cell", cell_name(c.cell));
  o.Set("format", c.apple_format ? "apple" : "redrafter");
  return set_numbers(o, {number("vocab", c.vocab), number("hidden", c.hidden), number("exit", c.exit),
                         number("blocks", c.blocks)});
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
    o.Set("shape", array_of(env, tensor.shape));
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
        o.Set("files", array_of(env, checkpoint->files()));
        o.Set("tensors", from_tensors(env, *checkpoint));
        o.Set("totalBytes", static_cast<double>(checkpoint->total_bytes()));
        return o;
      };
    });
  });
}

}  // namespace redrafter
