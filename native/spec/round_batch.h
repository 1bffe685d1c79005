// The rows of one pass, built on the host and sent to the backend in one copy.
#pragma once

#include <vector>

#include "base/arena.h"
#include "model/forward.h"

namespace redrafter {

class RoundBatch {
 public:
  // Room for `rows` rows of sequences of `table_stride` blocks, each row a node of a tree at most `depth`
  // deep.
  struct Limits {
    int64_t rows, depth, table_stride;
  };

  RoundBatch(const Limits& limits, const Backend& backend);
  // What the constructor takes of the backend.
  static int64_t bytes(const Limits& limits);

  void clear();
  // Sequences are numbered in the order they are added; rows belong to the last one.
  void add_sequence(const std::vector<int32_t>& blocks);
  // A row that sees the first `context` slots; `tail` adds the slots it sees behind them. `parent` is the
  // node above it, counted from the first row of its sequence, or -1.
  void add_row(int32_t token, int64_t position, int64_t slot, int64_t context, int32_t parent);
  void add_tail(int64_t slot);
  // The last row added gets logits; they choose the token at the next position.
  void add_output(const SampleSpec& spec);
  void upload(Stream& stream);

  int64_t rows() const { return rows_; }
  int64_t outputs() const { return outputs_; }
  Batch batch() const;
  // In the memory of the backend, after upload.
  const int32_t* output_rows() const { return device_.output; }                // [outputs]
  const int32_t* choose_positions() const { return device_.choose_position; }  // [outputs]
  const SampleSpec* specs() const { return device_.spec; }                     // [outputs]
  const int32_t* tokens() const { return device_.token; }                      // [rows]
  const int32_t* parents() const { return device_.parent; }                    // [rows]
  const int32_t* blocks(int64_t sequence) const { return device_.tables + sequence * limits_.table_stride; }

 private:
  struct Arrays {
    int32_t *token, *position, *slot, *sequence, *context, *parent, *tail_begin, *tail_slots;
    int32_t *output, *choose_position;
    SampleSpec* spec;
    int32_t* tables;  // last: only the sequences in use are sent
  };
  static Arrays carve(Arena& arena, const Limits& limits);

  Limits limits_;
  const Backend& backend_;
  std::vector<uint64_t> host_memory_;
  DeviceBuffer device_memory_;
  Arrays host_{}, device_{};
  int64_t rows_ = 0, outputs_ = 0, sequences_ = 0, tails_ = 0, max_positions_ = 0;
};

}  // namespace redrafter
