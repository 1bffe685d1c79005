// Weights of a recurrent drafter: Apple's checkpoint format with its aliases, and ours.
#pragma once

#include <vector>

#include "io/config.h"
#include "model/weights.h"

namespace redrafter {

struct RecurrentWeights {
  DrafterConfig config;
  Matrix w, u;  // recurrence, empty for the sum cell
  const float* w_bias = nullptr;
  const float* u_bias = nullptr;
  Matrix projection;  // [exit, 2 hidden], empty when exit = 2 hidden and the file has none
  const float* projection_bias = nullptr;
  struct Block {
    Matrix a;           // [exit, exit]
    const float* bias;  // [exit] or null
  };
  std::vector<Block> blocks;
  Matrix head;                      // [draft_vocab, exit]
  const int32_t* id_map = nullptr;  // [draft_vocab] target ids, null for the full vocabulary
  int64_t bytes = 0;
  std::vector<DeviceBuffer> memory;
};

// Whether any product needs room for quantised rows.
bool any_quantised(const RecurrentWeights& weights);

// "f32", "f16", "bf16", "q8_0", or "mixed" as stored.
const char* matrix_dtype_name(const RecurrentWeights& weights);

// What a drafter's matrices are converted to unless one asks: 4 bits beside a quantised target, 8 beside one
// of 16, whose output they do not change. At levels where that was measured to take longer ("base") or was
// not measured ("neon"), 8 bits and as the target's; the latter too where the backend has no such matrices,
// and where the drafter is not stored with 16 bits throughout. `target`: what was asked for the target,
// or what it is stored as where that is quantised.
MatrixDType drafter_dtype(const Backend& backend, const std::string& directory, MatrixDType target);

// `dtype`: what matrices are converted to. Throws ERR_DRAFTER when the drafter was made for another target
// (hidden size, vocabulary), ERR_MODEL_FORMAT when its tensors do not fit its own configuration.
RecurrentWeights load_recurrent_weights(const std::string& directory, const ModelConfig& target,
                                        const Backend& backend, Stream& stream, const LoadProgress& progress,
                                        MatrixDType dtype = {});

// Bytes of tensors the loader will read, for progress.
uint64_t drafter_bytes(const std::string& directory);

}  // namespace redrafter
