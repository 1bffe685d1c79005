#include "spec/drafters/recurrent_weights.h"

#include <initializer_list>

#include "base/check.h"
#include "base/quant.h"

namespace redrafter {
namespace {

// The first of several names that the checkpoint has, or the first one, so that the error names it.
std::string pick(const WeightLoader& loader, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (loader.has(name)) return name;
  }
  return names.front();
}

const float* optional_vector(WeightLoader& loader, const std::vector<std::string>& names, int64_t count) {
  const std::string name = pick(loader, names);
  return loader.has(name) ? loader.vector({{name, count}}) : nullptr;
}

void load_cell(RecurrentWeights& r, WeightLoader& loader) {
  const int64_t h = r.config.hidden;
  switch (r.config.cell) {
    case Cell::kSum:
      return;
    case Cell::kElman:
      r.w = loader.matrix({{"rnn_w.weight", h}}, h);
      r.u = loader.matrix({{"rnn_u.weight", h}}, h);
      r.w_bias = optional_vector(loader, {"rnn_w.bias"}, h);
      r.u_bias = optional_vector(loader, {"rnn_u.bias"}, h);
      return;
    case Cell::kGru:
      r.w = loader.matrix({{"gru.weight_ih", 3 * h}}, h);
      r.u = loader.matrix({{"gru.weight_hh", 3 * h}}, h);
      r.w_bias = optional_vector(loader, {"gru.bias_ih"}, 3 * h);
      r.u_bias = optional_vector(loader, {"gru.bias_hh"}, 3 * h);
      return;
  }
}

void load_mixer(RecurrentWeights& r, WeightLoader& loader) {
  const int64_t h = r.config.hidden, exit = r.config.exit;
  const std::vector<std::string> names = {"input_proj.weight", "input_projs.weight", "input_projs.0.weight"};
  const std::string projection = pick(loader, names);
  if (exit != 2 * h || loader.has(projection)) {
    r.projection = loader.matrix({{projection, exit}}, 2 * h);
    r.projection_bias =
        optional_vector(loader, {"input_proj.bias", "input_projs.bias", "input_projs.0.bias"}, exit);
  }
  for (int64_t i = 0; i < r.config.blocks; ++i) {
    const std::string n = std::to_string(i);
    const auto names_of = [&n](const char* part) {
      return std::vector<std::string>{"lm_head." + n + ".linear." + part, "blocks." + n + "." + part,
                                      "lm_heads." + n + ".linear." + part, "0." + n + ".linear." + part};
    };
    r.blocks.push_back({loader.matrix({{pick(loader, names_of("weight")), exit}}, exit),
                        optional_vector(loader, names_of("bias"), exit)});
  }
}

void load_head(RecurrentWeights& r, WeightLoader& loader) {
  const std::string n = std::to_string(r.config.blocks);
  const std::string name = pick(
      loader, {"lm_head." + n + ".weight", "head.weight", "lm_heads." + n + ".weight", "0." + n + ".weight"});
  int64_t rows = r.config.vocab;
  if (loader.has("draft_vocab_ids")) {
    const auto ids = loader.ids("draft_vocab_ids", r.config.vocab);
    r.id_map = ids.data;
    rows = ids.count;
  }
  r.head = loader.matrix({{name, rows}}, r.config.exit);
}

}  // namespace

RecurrentWeights load_recurrent_weights(const std::string& directory, const ModelConfig& target,
                                        const Backend& backend, Stream& stream, const LoadProgress& progress,
                                        MatrixDType dtype) {
  RecurrentWeights r;
  r.config = read_drafter_config(directory);
  REDRAFTER_REQUIRE(r.config.hidden == target.hidden, "ERR_DRAFTER", "the drafter in ", directory,
                    " was trained for a hidden size of ", r.config.hidden, ", the target has ",
                    target.hidden);
  REDRAFTER_REQUIRE(r.config.vocab == target.vocab, "ERR_DRAFTER", "the drafter in ", directory,
                    " was trained for a vocabulary of ", r.config.vocab, " ids, the target has ",
                    target.vocab);
  const Checkpoint checkpoint = Checkpoint::open(directory);
  WeightLoader loader(checkpoint, backend, stream, progress, drafter_dtype(dtype), r.config.quantised);
  load_cell(r, loader);
  load_mixer(r, loader);
  load_head(r, loader);
  r.bytes = loader.bytes();
  r.memory = loader.take_memory();
  return r;
}

bool any_quantised(const RecurrentWeights& weights) {
  bool any = false;
  for (const Matrix* w : {&weights.w, &weights.u, &weights.projection, &weights.head})
    any = any || dtype_is_quantised(w->dtype);
  for (const RecurrentWeights::Block& block : weights.blocks) any = any || dtype_is_quantised(block.a.dtype);
  return any;
}

uint64_t drafter_bytes(const std::string& directory) { return Checkpoint::open(directory).total_bytes(); }

}  // namespace redrafter
