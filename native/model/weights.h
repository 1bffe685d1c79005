// The weights of one target in a backend's memory, and the loader that both target and drafter use.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/checksum.h"
#include "io/checkpoint.h"
#include "io/config.h"
#include "model/staging.h"

namespace redrafter {

// Called as bytes are sent to the backend; returning false abandons the load with ERR_ABORTED.
using LoadProgress = std::function<bool(uint64_t bytes)>;

// What matrices are converted to while they are read; absent: kept as they are stored.
using MatrixDType = std::optional<DType>;

// "auto" (absent), "f32", "f16", "bf16", "q8_0" or "q4_0". Throws ERR_INVALID_ARGUMENT.
MatrixDType parse_matrix_dtype(const std::string& name);

// The dtype of a matrix that is stored as `stored`: that where it is quantised, else what was asked for, or
// as it is stored, or bf16 where the backend does not take that.
DType matrix_dtype(const Backend& backend, MatrixDType asked, DType stored);

// Reads tensors slice by slice into backend memory: nothing is ever held twice, and the next slice is read
// while the backend copies the one before. On a measuring backend tensors are checked and counted, but not
// read.
class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, const Backend& backend, Stream& stream, LoadProgress progress,
               MatrixDType dtype, MatrixDType quantised)
      : checkpoint_(checkpoint),
        backend_(backend),
        stream_(stream),
        progress_(std::move(progress)),
        dtype_(dtype),
        quantised_(quantised),
        staging_(backend, stream) {}

  bool has(const std::string& name) const { return checkpoint_.find(name) != nullptr; }

  // The rows of several [rows_i, cols] tensors under each other, packed. Unless they are converted, all must
  // be stored in one dtype. Throws ERR_INVALID_ARGUMENT when a finite weight would become infinite, and when
  // one that is quantised has no finite scale.
  struct Part {
    std::string name;
    int64_t rows;
  };
  Matrix matrix(const std::vector<Part>& parts, int64_t cols);

  // Several [n_i] tensors one after another, as fp32.
  const float* vector(const std::vector<Part>& parts);

  // An integer tensor of one dimension, not empty, with token ids from 0 to vocab - 1.
  struct Ids {
    const int32_t* data;
    int64_t count;
  };
  Ids ids(const std::string& name, int64_t vocab);

  int64_t bytes() const { return bytes_; }
  uint64_t checksum() const { return checksum_.value(); }  // of all bytes read
  // Waits for the last slice.
  std::vector<DeviceBuffer> take_memory() {
    staging_.finish();
    return std::move(memory_);
  }

 private:
  const TensorEntry& require(const std::string& name, const std::vector<int64_t>& shape) const;
  const TensorEntry& require_matrix(const std::string& name, int64_t rows, int64_t cols) const;
  DType stored_dtype(const TensorEntry& matrix) const;
  void* allocate(int64_t bytes);  // null on a measuring backend
  void read(const TensorEntry& tensor, uint64_t offset, void* to, uint64_t bytes);
  void* read_whole(const TensorEntry& tensor);  // into raw_
  void pack(const TensorEntry& tensor, int64_t first_row, const Matrix& w);
  // Rows of `tensor` in raw_ to those of `staged`, which have the dtype of w.
  void convert(const TensorEntry& tensor, int64_t row, int64_t rows, const Matrix& w, void* staged);
  // The `rows` rows from `row` on of a tensor, in the dtype of w and in memory that may be sent.
  const void* stage(const TensorEntry& tensor, int64_t row, int64_t rows, const Matrix& w);
  // Copies what staging_.take() gave, for a vector of `bytes` bytes.
  void send(void* to, const void* from, int64_t bytes);
  void report(uint64_t bytes);

  const Checkpoint& checkpoint_;
  const Backend& backend_;
  Stream& stream_;
  LoadProgress progress_;
  const MatrixDType dtype_;
  const MatrixDType quantised_;  // how matrices are stored, if they are quantised
  std::vector<float> floats_;    // a row on its way to be quantised
  std::vector<uint8_t> raw_;     // as stored, where that is not how it is sent
  std::vector<DeviceBuffer> memory_;
  int64_t bytes_ = 0;
  Checksum checksum_;
  Staging staging_;  // goes first: until then, copies into memory_ are under way
};

struct LayerWeights {
  const float* attention_norm;  // [hidden]
  Matrix qkv;                   // [(heads + 2 kv_heads) * head_dim, hidden]
  const float* qkv_bias;        // or null
  const float* q_norm;          // [head_dim] or null
  const float* k_norm;
  Matrix o;                   // [hidden, heads * head_dim]
  const float* o_bias;        // or null
  const float* ffn_norm;      // [hidden]
  Matrix gate_up;             // [2 ffn, hidden]
  const float* gate_up_bias;  // or null
  Matrix down;                // [hidden, ffn]
  const float* down_bias;     // or null
};

struct ModelWeights {
  Matrix embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  const float* final_norm;  // [hidden]
  Matrix head;              // [vocab, hidden]; the embedding when tied
  int64_t bytes = 0;
  uint64_t checksum = 0;  // of the weights as they were read
  std::vector<DeviceBuffer> memory;
};

// Throws ERR_MODEL_FORMAT naming the tensor that is missing, misshapen or of an unusable dtype.
ModelWeights load_model_weights(const ModelConfig& config, const Checkpoint& checkpoint,
                                const Backend& backend, Stream& stream, const LoadProgress& progress,
                                MatrixDType dtype = {});

// Whether any product needs room for quantised rows.
bool any_quantised(const ModelWeights& weights);

// The dtype of the target's matrices: "f32", "f16", "bf16", "q8_0", "q4_0", or "mixed" as stored.
const char* matrix_dtype_name(const ModelWeights& weights);

}  // namespace redrafter
