// One kernel at one shape: its cost, and how to run it on a device.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/threads.h"
#include "ops/cuda.h"
#include "ops/matmul_quant.h"
#include "shapes.h"

namespace redrafter::lab {

// Device memory of a case, freed with it.
class Memory {
 public:
  // cold: matrices() gives so many that one pass over them cannot come out of the second-level cache.
  Memory(const Backend& backend, Stream& stream, bool cold = true)
      : backend_(backend), stream_(stream), cold_(cold) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    for (void* block : blocks_) backend_.release(block);
  }

  const Backend& backend() const { return backend_; }
  Stream& stream() { return stream_; }
  // That share scratch of the CPU's ops; 1 on a device, whose ops have no use for it.
  int64_t threads() const { return stream_.threads == nullptr ? 1 : stream_.threads->size(); }

  void* bytes(size_t count) {
    void* block = backend_.allocate(count);
    REDRAFTER_REQUIRE(block != nullptr, "ERR_OOM", "cannot allocate ", count, " bytes on the device");
    blocks_.push_back(block);
    return block;
  }
  template <typename T>
  T* of(const std::vector<T>& values) {
    void* block = bytes(values.size() * sizeof(T) + 16);
    backend_.upload(block, values.data(), values.size() * sizeof(T), stream_);
    return static_cast<T*>(block);
  }
  template <typename T>
  T* empty(int64_t count) {
    return static_cast<T*>(bytes(static_cast<size_t>(count) * sizeof(T) + 16));
  }
  // Numbers between -scale and scale.
  float* floats(int64_t count, float scale = 1.0f);
  // A matrix of such numbers in the device's layout (which does not matter for random 16-bit numbers).
  Matrix matrix(int64_t rows, int64_t cols, DType dtype = DType::kBF16);
  // Of one shape, to be used in turn.
  std::vector<Matrix> matrices(int64_t rows, int64_t cols, DType dtype);
  // For rows of inputs where weights are quantised.
  QuantGroup* room(int64_t rows, int64_t cols) { return empty<QuantGroup>(quant_room(rows, cols)); }

 private:
  void repeat(void* block, size_t done, size_t bytes);

  const Backend& backend_;
  Stream& stream_;
  bool cold_;
  std::vector<void*> blocks_;
};

// Runs the kernel once; `turn` counts the runs, so that weights can take turns.
using Run = std::function<void(Stream&, int64_t turn)>;

struct Case {
  std::string kernel, shape;
  int64_t rows;
  Cost cost;
  std::function<Run(Memory&)> prepare;
  std::optional<DType> weights = std::nullopt;  // that it reads; there may be none
};

// A request with `context` committed tokens and a draft tree of `nodes` nodes, a bush of chains of four.
Batch tree_batch(Memory& memory, int64_t context, int64_t nodes);
// A cache of one layer for a sequence of `tokens` tokens.
KvLayer cache_layer(Memory& memory, const ModelShape& model, int64_t tokens);

std::vector<Case> kernel_cases(const ModelShape& model);   // cases.cc
std::vector<Case> drafter_cases(const ModelShape& model);  // drafter_cases.cc
std::vector<Case> step_cases(const ModelShape& model);     // steps.cc

// Compares the bits of rows between launches of different sizes, and of equal rows at different places of a
// tile; returns the faults found, as text.
std::vector<std::string> invariance_faults(const std::vector<ModelShape>& models, const Backend& backend,
                                           Stream& stream);  // invariance.cc

}  // namespace redrafter::lab
