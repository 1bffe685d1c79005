// The weights of a model directory: model.safetensors, or else model.safetensors.index.json and its shards.
// Opening reads headers only. Data is read with positioned reads, never mapped: a file that is truncated or
// replaced while in use gives ERR_FILE, not a signal.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace redrafter {

struct TensorEntry {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  uint64_t bytes;
  int file;         // index of the shard
  uint64_t offset;  // absolute offset in that file
};

class Checkpoint {
 public:
  // Throws ERR_FILE (cannot open or read) or ERR_MODEL_FORMAT (malformed), naming file and defect.
  static Checkpoint open(const std::string& directory);
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  // A file may also hold tensors of dtypes outside DType (F64, F8_E4M3, ...). Their sizes are checked like
  // all others, but they are not listed here, and find() on one throws ERR_MODEL_FORMAT naming the dtype.
  const std::vector<TensorEntry>& tensors() const;         // sorted by name
  const TensorEntry* find(const std::string& name) const;  // null when absent
  uint64_t total_bytes() const;                            // of all tensors()
  const std::vector<std::string>& files() const;           // paths of the shards

  // Reads bytes [offset, offset + bytes) of a tensor. Throws ERR_FILE on a short read or when the file's size
  // or identity changed since open.
  void read(const TensorEntry& tensor, uint64_t offset, void* to, uint64_t bytes) const;

 private:
  struct State;
  explicit Checkpoint(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace redrafter
