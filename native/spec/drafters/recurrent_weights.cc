#include "spec/drafters/recurrent_weights.h"

#include <algorithm>
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

std::vector<DType> matrix_dtypes(const RecurrentWeights& weights) {
  std::vector<DType> dtypes;
  for (const Matrix* w : {&weights.head, &weights.w, &weights.u, &weights.projection}) {
    if (w->rows > 0) dtypes.push_back(w->dtype);
  }
  for (const RecurrentWeights::Block& block : weights.blocks) dtypes.push_back(block.a.dtype);
  return dtypes;
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
  WeightLoader loader(checkpoint, backend, stream, progress, dtype, r.config.quantised);
  load_cell(r, loader);
  load_mixer(r, loader);
  load_head(r, loader);
  r.bytes = loader.bytes();
  r.memory = loader.take_memory();
  return r;
}

bool any_quantised(const RecurrentWeights& weights) {
  const std::vector<DType> dtypes = matrix_dtypes(weights);
  return std::any_of(dtypes.begin(), dtypes.end(), dtype_is_quantised);
}

const char* matrix_dtype_name(const RecurrentWeights& weights) {
  const std::vector<DType> dtypes = matrix_dtypes(weights);
  const DType first = dtypes.front();
  return std::count(dtypes.begin(), dtypes.end(), first) == std::ssize(dtypes) ? dtype_name(first) : "mixed";
}

MatrixDType drafter_dtype(const Backend& backend, const std::string& directory, MatrixDType target) {
  const std::string level = backend.level;
  const bool measured = level != "base" && level != "neon";
  if (target && dtype_is_quantised(*target)) return measured ? DType::kQ4_0 : DType::kQ8_0;
  if (target == DType::kF32 || !backend.takes(DType::kQ8_0) || !measured) return target;
  const Checkpoint checkpoint = Checkpoint::open(directory);
  const std::vector<TensorEntry>& tensors = checkpoint.tensors();
  const bool is_16_bit = std::all_of(tensors.begin(), tensors.end(), [](const TensorEntry& tensor) {
    return tensor.shape.size() != 2 || tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16;
  });
  return is_16_bit ? MatrixDType(DType::kQ8_0) : target;
}

uint64_t drafter_bytes(const std::string& directory) { return Checkpoint::open(directory).total_bytes(); }

}  // namespace redrafter
