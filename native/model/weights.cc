#include "model/weights.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/quant.h"

namespace redrafter {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace

MatrixDType parse_matrix_dtype(const std::string& name) {
  if (name == "auto") return std::nullopt;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  fail("ERR_INVALID_ARGUMENT", "unknown dtype \"", name, "\"; expected auto, f32, f16, bf16, q8_0 or q4_0");
}

DType matrix_dtype(const Backend& backend, MatrixDType asked, DType stored) {
  if (dtype_is_quantised(stored)) return stored;
  return asked.value_or(backend.takes(stored) ? stored : DType::kBF16);
}

// What the tensor of a matrix must be, if config.json says that matrices are quantised: rows of groups.
const TensorEntry& WeightLoader::require_matrix(const std::string& name, int64_t rows, int64_t cols) const {
  if (!quantised_) return require(name, {rows, cols});
  const TensorEntry* tensor = checkpoint_.find(name);
  if (tensor == nullptr) return require(name, {rows, cols});  // which says so
  REDRAFTER_REQUIRE(tensor->dtype == DType::kU8, "ERR_MODEL_FORMAT", "tensor \"", name, "\" is ",
                    dtype_name(tensor->dtype), ", but config.json says that matrices are quantised as ",
                    dtype_name(*quantised_), ", which is stored as u8");
  const std::vector<int64_t> shape = {rows, dtype_row_bytes(*quantised_, cols)};
  REDRAFTER_REQUIRE(tensor->shape == shape, "ERR_MODEL_FORMAT", "tensor \"", name, "\" has shape ",
                    shape_text(tensor->shape), ", but a ", dtype_name(*quantised_), " matrix of ", rows,
                    " x ", cols, " has ", shape_text(shape));
  REDRAFTER_REQUIRE(backend_.takes(*quantised_), "ERR_INVALID_ARGUMENT", "weights are stored as ",
                    dtype_name(*quantised_), ", which ", backend_.name,
                    " has no matrices of; load them with device \"cpu\"");
  return *tensor;
}

DType WeightLoader::stored_dtype(const TensorEntry& matrix) const {
  return matrix.dtype == DType::kU8 ? *quantised_ : matrix.dtype;
}

const TensorEntry& WeightLoader::require(const std::string& name, const std::vector<int64_t>& shape) const {
  const TensorEntry* tensor = checkpoint_.find(name);
  REDRAFTER_REQUIRE(tensor != nullptr, "ERR_MODEL_FORMAT", "tensor \"", name, "\" is missing from ",
                    checkpoint_.files().front());
  REDRAFTER_REQUIRE(tensor->shape == shape, "ERR_MODEL_FORMAT", "tensor \"", name, "\" has shape ",
                    shape_text(tensor->shape), ", but config.json asks for ", shape_text(shape));
  REDRAFTER_REQUIRE(dtype_is_float(tensor->dtype), "ERR_MODEL_FORMAT", "tensor \"", name, "\" is ",
                    dtype_name(tensor->dtype), "; weights must be f32, f16 or bf16");
  return *tensor;
}

void* WeightLoader::allocate(int64_t bytes) {
  memory_.emplace_back(backend_, static_cast<size_t>(bytes));
  bytes_ += bytes;
  return memory_.back().as<void>();
}

void WeightLoader::read(const TensorEntry& tensor, uint64_t offset, void* to, uint64_t bytes) {
  checkpoint_.read(tensor, offset, to, bytes);
  checksum_.update(to, bytes);
}

void* WeightLoader::read_whole(const TensorEntry& tensor) {
  raw_.resize(std::max<size_t>(raw_.size(), tensor.bytes));
  read(tensor, 0, raw_.data(), tensor.bytes);
  return raw_.data();
}

void WeightLoader::report(uint64_t bytes) {
  REDRAFTER_REQUIRE(progress_(bytes), "ERR_ABORTED", "loading was aborted");
}

void WeightLoader::send(void* to, const void* from, int64_t bytes) {
  staging_.send([&] { backend_.upload_later(to, from, static_cast<size_t>(bytes), stream_); });
}

Matrix WeightLoader::matrix(const std::vector<Part>& parts, int64_t cols) {
  Matrix w;
  w.cols = cols;
  for (const Part& part : parts) {
    const TensorEntry& tensor = require_matrix(part.name, part.rows, cols);
    const DType dtype = matrix_dtype(backend_, dtype_, stored_dtype(tensor));
    if (w.rows == 0) w.dtype = dtype;
    REDRAFTER_REQUIRE(dtype == w.dtype, "ERR_MODEL_FORMAT", "tensors \"", parts.front().name, "\" (",
                      dtype_name(w.dtype), ") and \"", part.name, "\" (", dtype_name(dtype),
                      ") must have the same dtype; load with a dtype for all");
    w.rows += part.rows;
  }
  w.data = allocate(backend_.matrix_bytes(w.rows, w.cols, w.dtype));
  if (w.data == nullptr) return w;
  int64_t first = 0;
  for (const Part& part : parts) {
    pack(require_matrix(part.name, part.rows, cols), first, w);
    first += part.rows;
  }
  return w;
}

void WeightLoader::pack(const TensorEntry& tensor, int64_t first_row, const Matrix& w) {
  const int64_t stored = dtype_row_bytes(stored_dtype(tensor), w.cols);
  const int64_t slice = std::max<int64_t>(
      kPanelRows, Staging::kSliceBytes / std::max(stored, dtype_row_bytes(w.dtype, w.cols)));
  for (int64_t row = 0; row < tensor.shape[0]; row += slice) {
    const int64_t rows = std::min(slice, tensor.shape[0] - row);
    const void* source = stage(tensor, row, rows, w);
    staging_.send([&] { backend_.matmul_pack({source, first_row + row, rows, w}, stream_); });
    report(static_cast<uint64_t>(rows * stored));
  }
}

const void* WeightLoader::stage(const TensorEntry& tensor, int64_t row, int64_t rows, const Matrix& w) {
  const DType stored = stored_dtype(tensor);
  const int64_t row_bytes = dtype_row_bytes(stored, w.cols);
  const auto offset = static_cast<uint64_t>(row * row_bytes), bytes = static_cast<uint64_t>(rows * row_bytes);
  void* staged = staging_.take(rows * dtype_row_bytes(w.dtype, w.cols));
  if (stored != w.dtype) {
    raw_.resize(std::max<size_t>(raw_.size(), bytes));
    read(tensor, offset, raw_.data(), bytes);
    convert(tensor, row, rows, w, staged);
    return staged;
  }
  read(tensor, offset, staged, bytes);
  if (!dtype_is_quantised(stored)) return staged;
  const int64_t groups = groups_of(w.cols);
  const int64_t bad = find_bad_group(static_cast<const uint8_t*>(staged), rows * groups, stored);
  REDRAFTER_REQUIRE(bad < 0, "ERR_MODEL_FORMAT", "tensor \"", tensor.name, "\": the scale of group ",
                    bad % groups, " of row ", row + bad / groups, " is not a finite number");
  return staged;
}

void WeightLoader::convert(const TensorEntry& tensor, int64_t row, int64_t rows, const Matrix& w,
                           void* staged) {
  const auto size = static_cast<int64_t>(dtype_bytes(tensor.dtype));
  int64_t overflow = -1;
  if (!dtype_is_quantised(w.dtype)) {
    overflow = convert_elements(raw_.data(), tensor.dtype, staged, w.dtype, rows * w.cols);
  } else {
    floats_.resize(static_cast<size_t>(w.cols));
    auto* groups = static_cast<uint8_t*>(staged);
    for (int64_t r = 0; r < rows && overflow < 0; ++r, groups += dtype_row_bytes(w.dtype, w.cols)) {
      convert_elements(raw_.data() + r * w.cols * size, tensor.dtype, floats_.data(), DType::kF32, w.cols);
      const int64_t column = quantise_row(floats_.data(), w.cols, w.dtype, groups);
      if (column >= 0) overflow = r * w.cols + column;
    }
  }
  if (overflow < 0) return;
  float value = 0.0f;
  convert_elements(raw_.data() + overflow * size, tensor.dtype, &value, DType::kF32, 1);
  fail("ERR_INVALID_ARGUMENT", "dtype \"", dtype_name(w.dtype), "\" cannot hold element [",
       row + overflow / w.cols, ", ", overflow % w.cols, "] of tensor \"", tensor.name, "\": ", value,
       std::isfinite(value) ? " is too large" : " is not finite",
       "; another dtype may (of a drafter: drafterDtype)");
}

const float* WeightLoader::vector(const std::vector<Part>& parts) {
  int64_t count = 0;
  for (const Part& part : parts) count += require(part.name, {part.rows}).shape[0];
  const int64_t bytes = count * static_cast<int64_t>(sizeof(float));
  auto* data = static_cast<float*>(allocate(bytes));
  if (data == nullptr) return nullptr;
  auto* values = static_cast<float*>(staging_.take(bytes));
  float* next = values;
  uint64_t read_bytes = 0;
  for (const Part& part : parts) {
    const TensorEntry& tensor = require(part.name, {part.rows});
    convert_elements(read_whole(tensor), tensor.dtype, next, DType::kF32, part.rows);
    next += part.rows;
    read_bytes += tensor.bytes;
  }
  send(data, values, bytes);
  report(read_bytes);
  return data;
}

WeightLoader::Ids WeightLoader::ids(const std::string& name, int64_t vocab) {
  const TensorEntry* tensor = checkpoint_.find(name);
  REDRAFTER_CHECK(tensor != nullptr);
  const bool wide = tensor->dtype == DType::kI64;
  REDRAFTER_REQUIRE((wide || tensor->dtype == DType::kI32) && tensor->shape.size() == 1, "ERR_MODEL_FORMAT",
                    "tensor \"", name, "\" must be a vector of i32 or i64");
  const int64_t count = tensor->shape[0];
  REDRAFTER_REQUIRE(count > 0, "ERR_MODEL_FORMAT", "tensor \"", name, "\" is empty");
  const int64_t bytes = count * static_cast<int64_t>(sizeof(int32_t));
  auto* data = static_cast<int32_t*>(allocate(bytes));
  if (data == nullptr) return {nullptr, count};
  const auto* stored = static_cast<const uint8_t*>(read_whole(*tensor));
  auto* ids = static_cast<int32_t*>(staging_.take(bytes));
  for (int64_t i = 0; i < count; ++i) {
    int64_t value = 0;
    int32_t narrow = 0;
    if (wide) {
      std::memcpy(&value, stored + i * 8, 8);
    } else {
      std::memcpy(&narrow, stored + i * 4, 4);
      value = narrow;
    }
    REDRAFTER_REQUIRE(value >= 0 && value < vocab, "ERR_MODEL_FORMAT", "tensor \"", name, "\" holds the id ",
                      value, ", but the vocabulary has ", vocab, " ids");
    ids[i] = static_cast<int32_t>(value);
  }
  send(data, ids, bytes);
  report(tensor->bytes);
  return {data, count};
}

namespace {

LayerWeights load_layer(const ModelConfig& c, WeightLoader& loader, int64_t index) {
  const std::string layer = "model.layers." + std::to_string(index) + ".";
  const std::string attention = layer + "self_attn.", mlp = layer + "mlp.";
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  LayerWeights w{};
  w.attention_norm = loader.vector({{layer + "input_layernorm.weight", c.hidden}});
  w.qkv = loader.matrix({{attention + "q_proj.weight", q},
                         {attention + "k_proj.weight", kv},
                         {attention + "v_proj.weight", kv}},
                        c.hidden);
  if (c.qkv_bias) {
    w.qkv_bias = loader.vector(
        {{attention + "q_proj.bias", q}, {attention + "k_proj.bias", kv}, {attention + "v_proj.bias", kv}});
  }
  if (c.qk_norm) {
    w.q_norm = loader.vector({{attention + "q_norm.weight", c.head_dim}});
    w.k_norm = loader.vector({{attention + "k_norm.weight", c.head_dim}});
  }
  w.o = loader.matrix({{attention + "o_proj.weight", c.hidden}}, q);
  if (c.o_bias) w.o_bias = loader.vector({{attention + "o_proj.bias", c.hidden}});
  w.ffn_norm = loader.vector({{layer + "post_attention_layernorm.weight", c.hidden}});
  w.gate_up = loader.matrix({{mlp + "gate_proj.weight", c.ffn}, {mlp + "up_proj.weight", c.ffn}}, c.hidden);
  if (c.mlp_bias)
    w.gate_up_bias = loader.vector({{mlp + "gate_proj.bias", c.ffn}, {mlp + "up_proj.bias", c.ffn}});
  w.down = loader.matrix({{mlp + "down_proj.weight", c.hidden}}, c.ffn);
  if (c.mlp_bias) w.down_bias = loader.vector({{mlp + "down_proj.bias", c.hidden}});
  return w;
}

}  // namespace

ModelWeights load_model_weights(const ModelConfig& c, const Checkpoint& checkpoint, const Backend& backend,
                                Stream& stream, const LoadProgress& progress, MatrixDType dtype) {
  WeightLoader loader(checkpoint, backend, stream, progress, dtype, c.quantised);
  ModelWeights w{};
  w.embedding = loader.matrix({{"model.embed_tokens.weight", c.vocab}}, c.hidden);
  for (int64_t i = 0; i < c.layers; ++i) w.layers.push_back(load_layer(c, loader, i));
  w.final_norm = loader.vector({{"model.norm.weight", c.hidden}});
  w.head = c.tied_embeddings ? w.embedding : loader.matrix({{"lm_head.weight", c.vocab}}, c.hidden);
  w.bytes = loader.bytes();
  w.checksum = loader.checksum();
  w.memory = loader.take_memory();
  return w;
}

bool any_quantised(const ModelWeights& weights) {
  bool any = dtype_is_quantised(weights.head.dtype);
  for (const LayerWeights& layer : weights.layers) {
    for (const Matrix* w : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
      any = any || dtype_is_quantised(w->dtype);
  }
  return any;
}

const char* matrix_dtype_name(const ModelWeights& weights) {
  const DType first = weights.embedding.dtype;
  bool same = weights.head.dtype == first;
  for (const LayerWeights& layer : weights.layers) {
    for (const Matrix* w : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
      same = same && w->dtype == first;
  }
  return same ? dtype_name(first) : "mixed";
}

}  // namespace redrafter
