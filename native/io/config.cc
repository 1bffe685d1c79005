#include "io/config.h"

#include <algorithm>
#include <new>

#include "base/check.h"
#include "io/config_object.h"
#include "io/config_quantised.h"
#include "io/config_rope.h"
#include "io/file.h"
#include "io/text.h"

namespace redrafter {
namespace {

using json::Kind;
using json::Value;

// Far above any model in use, and low enough that products of two of them are exact in 64 bits.
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxHidden = 1 << 18;
constexpr int64_t kMaxFfn = 1 << 20;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxPositions = 2147483647;
constexpr uint32_t kMaxEosIds = 256;

// What a family fixes, and what an absent key means in it; as in Hugging Face's transformers.
struct Family {
  const char* architecture;
  const char* name;
  int64_t max_positions;
  int64_t head_dim;          // 0: hidden / heads
  bool attention_bias_key;   // "attention_bias" puts biases on q, k, v and the output
  bool mlp_bias_key;         // "mlp_bias" exists
  bool qkv_bias;             // always biases on q, k and v
  bool qk_norm;              // always
  bool window;               // "sliding_window" exists
  bool window_needs_a_flag;  // and counts only with "use_sliding_window"
};

const Family kFamilies[] = {
    {"LlamaForCausalLM", "llama", 2048, 0, true, true, false, false, false, false},
    {"MistralForCausalLM", "mistral", 131072, 0, false, false, false, false, true, false},
    {"Qwen2ForCausalLM", "qwen2", 32768, 0, false, false, true, false, true, true},
    {"Qwen3ForCausalLM", "qwen3", 32768, 128, true, false, false, true, true, true},
};

const Family& read_family(const ConfigObject& config) {
  const std::optional<Value> names = config.find("architectures");
  if (!names) config.fail("architectures", "is missing, expected a list with one name");
  if (!names->is(Kind::kArray) || names->size() != 1 || !(*names->begin()).is(Kind::kString)) {
    config.fail_type("architectures", "a list with one name", *names);
  }
  const std::string name((*names->begin()).text());
  for (const Family& family : kFamilies) {
    if (name != family.architecture) continue;
    if (config.has("model_type") && config.string("model_type") != family.name) {
      config.fail("model_type", "is " + quote(config.string("model_type")) +
                                    ", which contradicts the architecture " + quote(name) + " (its type is " +
                                    quote(family.name) + ")");
    }
    return family;
  }
  if (name == "Drafter" || name == "RecurrentDrafter") {
    config.fail("architectures", "names " + quote(name) + ": this is a drafter, not a model");
  }
  config.fail("architectures", "names " + quote(name) +
                                   ", which is not supported (LlamaForCausalLM, MistralForCausalLM, "
                                   "Qwen2ForCausalLM and Qwen3ForCausalLM are)");
}

void read_shape(const ConfigObject& config, const Family& family, ModelConfig& model) {
  model.vocab = config.integer("vocab_size", 1, kMaxVocab);
  model.hidden = config.integer("hidden_size", 1, kMaxHidden);
  model.layers = config.integer("num_hidden_layers", 1, kMaxLayers);
  model.ffn = config.integer("intermediate_size", 1, kMaxFfn);
  model.heads = config.integer("num_attention_heads", 1, kMaxHeads);
  model.kv_heads =
      config.has("num_key_value_heads") ? config.integer("num_key_value_heads", 1, model.heads) : model.heads;
  if (model.heads % model.kv_heads != 0) {
    config.fail("num_key_value_heads", "is " + std::to_string(model.kv_heads) +
                                           ", which does not divide \"num_attention_heads\" " +
                                           std::to_string(model.heads));
  }
  if (config.has("head_dim")) {
    model.head_dim = config.integer("head_dim", 1, kMaxHeadDim);
  } else if (family.head_dim != 0) {
    model.head_dim = family.head_dim;
  } else {
    if (model.hidden % model.heads != 0) {
      config.fail("hidden_size", "is " + std::to_string(model.hidden) +
                                     ", not a multiple of \"num_attention_heads\" " +
                                     std::to_string(model.heads) + ", and there is no \"head_dim\"");
    }
    model.head_dim = model.hidden / model.heads;
  }
  if (model.head_dim % 2 != 0 || model.head_dim > kMaxHeadDim) {
    config.fail("head_dim", "is " + std::to_string(model.head_dim) + ", it must be even and at most " +
                                std::to_string(kMaxHeadDim));
  }
}

void read_blocks(const ConfigObject& config, const Family& family, ModelConfig& model) {
  model.norm_eps = config.number_or("rms_norm_eps", 1e-6, 1e-30, 1.0);
  model.tied_embeddings = config.boolean_or("tie_word_embeddings", false);
  const bool attention_bias = family.attention_bias_key && config.boolean_or("attention_bias", false);
  model.qkv_bias = family.qkv_bias || attention_bias;
  model.o_bias = attention_bias;
  model.mlp_bias = family.mlp_bias_key && config.boolean_or("mlp_bias", false);
  model.qk_norm = family.qk_norm;
  const std::optional<Value> act = config.find("hidden_act");
  if (act && !(act->is(Kind::kString) && act->text() == "silu")) {
    config.fail_type("hidden_act", "\"silu\", the only activation supported", *act);
  }
  if (!config.has("layer_types")) return;
  // Windows are honoured by limiting the context below, so both of these are the same thing here.
  const Value types = *config.find("layer_types");
  if (!types.is(Kind::kArray)) config.fail_type("layer_types", "a list", types);
  for (const Value type : types) {
    if (!type.is(Kind::kString) || (type.text() != "full_attention" && type.text() != "sliding_attention")) {
      config.fail_type("layer_types", "a list of \"full_attention\" and \"sliding_attention\"", type);
    }
  }
}

// Attention over a window equals full attention as long as the context fits the window, so the window becomes
// the context limit.
void read_positions(const ConfigObject& config, const Family& family, ModelConfig& model) {
  model.max_positions = config.integer_or("max_position_embeddings", family.max_positions, 1, kMaxPositions);
  model.rope = read_rope(config, model.max_positions);
  if (model.rope.scaling == RopeScaling::kYarn) {
    // Configurations made for yarn may still state the length before it.
    const double extended = model.rope.factor * static_cast<double>(model.rope.original_max_positions);
    const auto capped = static_cast<int64_t>(std::min(extended, static_cast<double>(kMaxPositions)));
    model.max_positions = std::max(model.max_positions, capped);
  }
  const bool active =
      family.window && (!family.window_needs_a_flag || config.boolean_or("use_sliding_window", false));
  if (!active) return;
  if (!config.find("sliding_window")) {
    model.sliding_window = 4096;  // what absence means to transformers; null means none
  } else if (config.has("sliding_window")) {
    model.sliding_window = config.integer("sliding_window", 1, kMaxPositions);
  }
  if (model.sliding_window > 0) model.max_positions = std::min(model.max_positions, model.sliding_window);
}

int32_t eos_id(const ConfigObject& config, const Value& value, int64_t vocab) {
  const std::optional<uint64_t> id = value.as_u64();
  if (!id || *id >= static_cast<uint64_t>(vocab)) {
    config.fail_type("eos_token_id",
                     "an id from 0 to " + std::to_string(vocab - 1) + ", or a list of such ids", value);
  }
  return static_cast<int32_t>(*id);
}

std::vector<int32_t> read_eos(const ConfigObject& config, int64_t vocab) {
  std::vector<int32_t> ids;
  if (!config.has("eos_token_id")) return ids;
  const Value value = *config.find("eos_token_id");
  if (!value.is(Kind::kArray)) return {eos_id(config, value, vocab)};
  if (value.size() > kMaxEosIds) {
    config.fail("eos_token_id", "lists " + std::to_string(value.size()) + " ids, at most " +
                                    std::to_string(kMaxEosIds) + " are supported");
  }
  for (const Value element : value) {
    const int32_t id = eos_id(config, element, vocab);
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  return ids;
}

ModelConfig parse_model_config(const std::string& directory) {
  require_directory(directory);
  const ConfigObject config = ConfigObject::read(join_path(directory, "config.json"));
  const Family& family = read_family(config);
  ModelConfig model;
  model.architecture = family.architecture;
  model.family = family.name;
  model.quantised = read_quantised(config);
  read_shape(config, family, model);
  read_blocks(config, family, model);
  read_positions(config, family, model);
  const std::string generation = join_path(directory, "generation_config.json");
  if (path_kind(generation) != PathKind::kMissing) {
    model.eos = read_eos(ConfigObject::read(generation), model.vocab);
  }
  if (model.eos.empty()) model.eos = read_eos(config, model.vocab);
  return model;
}

}  // namespace

ModelConfig read_model_config(const std::string& directory) try {
  return parse_model_config(directory);
} catch (const std::bad_alloc&) {
  fail("ERR_OOM", "not enough memory to read the configuration in ", quote_path(directory));
}

}  // namespace redrafter
