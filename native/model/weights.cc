#include "model/weights.h"

#include <algorithm>

#include "base/check.h"

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
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  fail("ERR_INVALID_ARGUMENT", "unknown dtype \"", name, "\"; expected auto, f32, f16 or bf16");
}

DType matrix_dtype(const Backend& backend, MatrixDType asked, DType stored) {
  return asked.value_or(backend.takes(stored) ? stored : DType::kBF16);
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
    const TensorEntry& tensor = require(part.name, {part.rows, cols});
    const DType dtype = matrix_dtype(backend_, dtype_, tensor.dtype);
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
    pack(require(part.name, {part.rows, cols}), first, w);
    first += part.rows;
  }
  return w;
}

void WeightLoader::pack(const TensorEntry& tensor, int64_t first_row, const Matrix& w) {
  const size_t widest = std::max(dtype_bytes(tensor.dtype), dtype_bytes(w.dtype));
  const int64_t slice =
      std::max<int64_t>(kPanelRows, Staging::kSliceBytes / (w.cols * static_cast<int64_t>(widest)));
  for (int64_t row = 0; row < tensor.shape[0]; row += slice) {
    const int64_t rows = std::min(slice, tensor.shape[0] - row);
    const void* source = stage(tensor, row, rows, w);
    staging_.send([&] { backend_.matmul_pack({source, first_row + row, rows, w}, stream_); });
    report(static_cast<uint64_t>(rows * w.cols) * dtype_bytes(tensor.dtype));
  }
}

const void* WeightLoader::stage(const TensorEntry& tensor, int64_t row, int64_t rows, const Matrix& w) {
  const int64_t count = rows * w.cols;
  const uint64_t offset = static_cast<uint64_t>(row * w.cols) * dtype_bytes(tensor.dtype);
  const uint64_t bytes = static_cast<uint64_t>(count) * dtype_bytes(tensor.dtype);
  void* staged = staging_.take(count * static_cast<int64_t>(dtype_bytes(w.dtype)));
  if (tensor.dtype == w.dtype) {
    read(tensor, offset, staged, bytes);
    return staged;
  }
  raw_.resize(std::max<size_t>(raw_.size(), bytes));
  read(tensor, offset, raw_.data(), bytes);
  const int64_t overflow = convert_elements(raw_.data(), tensor.dtype, staged, w.dtype, count);
  if (overflow >= 0) {
    float value = 0.0f;
    convert_elements(raw_.data() + static_cast<size_t>(overflow) * dtype_bytes(tensor.dtype), tensor.dtype,
                     &value, DType::kF32, 1);
    fail("ERR_INVALID_ARGUMENT", "dtype \"", dtype_name(w.dtype), "\" cannot hold element [",
         row + overflow / w.cols, ", ", overflow % w.cols, "] of tensor \"", tensor.name, "\": ", value,
         " is too large");
  }
  return staged;
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
  WeightLoader loader(checkpoint, backend, stream, progress, dtype);
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
