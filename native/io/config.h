// What config.json says, checked. Parsing is data only: unknown keys are ignored, nothing is fetched or run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/cell.h"
#include "base/dtype.h"

namespace redrafter {

enum class RopeScaling : uint8_t { kNone, kLinear, kLlama3, kYarn };

struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  // llama3
  double low_freq_factor = 1.0, high_freq_factor = 4.0;
  // llama3 and yarn
  int64_t original_max_positions = 0;
  // yarn
  double beta_fast = 32.0, beta_slow = 1.0;
  double attention_factor = 0.0;  // 0: derive from factor as 0.1 ln(factor) + 1 (mscale keys considered)
  double mscale = 0.0, mscale_all_dim = 0.0;
  bool truncate = true;

  bool operator==(const RopeConfig&) const = default;
};

// One struct for all families: what differs between them is data.
struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM", ...
  std::string family;        // "llama", "mistral", "qwen2", "qwen3"
  int64_t vocab = 0, hidden = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0;
  // Context limit: extended by yarn's factor where the file states the length before it, and capped at the
  // sliding window where the family has one.
  int64_t max_positions = 0;
  int64_t sliding_window = 0;  // as configured; 0: none
  double norm_eps = 1e-6;
  bool tied_embeddings = false;
  bool qkv_bias = false;  // bias on q, k and v
  bool o_bias = false;    // bias on the attention output (Llama's attention_bias sets both)
  bool mlp_bias = false;
  std::optional<DType> quantised;  // how matrices are stored, if they are quantised
  bool qk_norm = false;            // RMS norm on each head of q and k before rope
  RopeConfig rope;
  std::vector<int32_t> eos;  // from generation_config.json, else config.json; may be empty
};

struct DrafterConfig {
  Cell cell = Cell::kSum;
  bool apple_format = false;
  int64_t vocab = 0, hidden = 0, exit = 0, blocks = 0;
  std::optional<DType> quantised;  // how matrices are stored, if they are quantised
};

// Reads config.json (and generation_config.json for eos) of a model directory. Throws ERR_FILE, ERR_CONFIG.
ModelConfig read_model_config(const std::string& directory);

// Reads config.json of a drafter directory. Throws ERR_FILE, ERR_CONFIG.
DrafterConfig read_drafter_config(const std::string& directory);

}  // namespace redrafter
