#include "model/fingerprint.h"

#include <iomanip>
#include <sstream>

#include "base/checksum.h"

namespace redrafter {

// Everything of the configuration that enters the arithmetic, and the bytes of all weights as they were read.
uint64_t model_fingerprint(const ModelConfig& c, const ModelWeights& weights) {
  const RopeConfig& r = c.rope;
  std::ostringstream text;
  text << std::hexfloat;
  for (const int64_t value : {c.vocab, c.hidden, c.layers, c.heads, c.kv_heads, c.head_dim, c.ffn})
    text << value << ' ';
  text << c.norm_eps << ' ' << c.tied_embeddings << c.qkv_bias << c.o_bias << c.mlp_bias << c.qk_norm << ' ';
  text << r.theta << ' ' << static_cast<int>(r.scaling) << ' ' << r.factor << ' ' << r.low_freq_factor << ' '
       << r.high_freq_factor << ' ' << r.original_max_positions << ' ' << r.beta_fast << ' ' << r.beta_slow
       << ' ' << r.attention_factor << ' ' << r.mscale << ' ' << r.mscale_all_dim << ' ' << r.truncate << ' ';
  text << matrix_dtype_name(weights) << ' ' << weights.checksum;
  Checksum checksum;
  checksum.update(text.str());
  return checksum.value();
}

}  // namespace redrafter
