// The rows of one pass and what is known of its lanes, built on the host and sent to the backend in one copy.
// A lane is a sequence in the pass. Lanes with drafts come first, then those that decode plainly, then those
// whose prompt ends in this pass, then the others: so lanes that choose tokens are a prefix, and the rows of
// drafts, which the backend fills in itself, are one too. A lane may be padding: it has no rows. Rows that no
// lane has are inert (see Batch) and come last.
#pragma once

#include <vector>

#include "base/arena.h"
#include "model/forward.h"

namespace redrafter {

class RoundBatch {
 public:
  // Room for `rows` rows of sequences of `table_stride` blocks, each row a node of a tree less than `depths`
  // deep.
  struct Limits {
    int64_t rows, depths, table_stride;
  };

  // All with room for limits.rows entries but for tail_slots [rows, depths] and tables [rows, table_stride].
  struct Arrays {
    int32_t *root, *hidden_row, *committed;  // by lane
    int32_t* begin;                          // by lane, and one more: outputs of a lane
    int32_t *token, *position, *slot, *sequence, *context, *tail_begin, *tail_slots;  // by row
    int32_t *output, *choose_position, *parent;  // by output: its row, its position + 1, its parent in a tree
    SampleSpec* spec;                            // by output
    int32_t* tables;                             // by lane; last: only those in use are sent
  };

  RoundBatch(const Limits& limits, const Backend& backend);
  // What the constructor takes of the backend.
  static int64_t bytes(const Limits& limits);

  void clear();
  // The next lane: its newest token, the row of its hidden state, its tokens in the cache and their blocks.
  void add_lane(int32_t root, int32_t hidden_row, int64_t committed, const std::vector<int32_t>& blocks);
  // A lane without rows, which drafts what the lane before it drafts.
  void add_padding_lane();
  // Then their rows, lane by lane.
  void add_tree(int64_t nodes, const SampleSpec& spec);  // filled in by tree_rows
  void add_root(const SampleSpec& spec);
  void add_prompt_row(int32_t token, int64_t position);
  void add_output(const SampleSpec& spec);  // the last row added gets logits
  void end_lane();
  // Behind the rows of all lanes. They get logits, too.
  void add_inert_rows(int64_t count);

  // Nobody waits for them: nothing may be changed here before the stream has got so far.
  void upload_lanes(Stream& stream) const;  // root, hidden_row and committed
  void upload(Stream& stream) const;        // everything; how many bytes depends on the number of lanes alone

  int64_t rows() const { return rows_; }
  int64_t outputs() const { return outputs_; }
  int64_t lanes() const { return lanes_; }
  int64_t max_positions() const { return max_positions_; }
  int32_t first_output(int64_t lane) const { return host_.begin[lane]; }
  const Arrays& device() const { return device_; }
  const Limits& limits() const { return limits_; }
  Batch batch() const;

 private:
  static Arrays carve(Arena& arena, const Limits& limits);
  int64_t add_row(int32_t token, int64_t position, int64_t context);

  Limits limits_;
  const Backend& backend_;
  HostBuffer host_memory_;
  DeviceBuffer device_memory_;
  Arrays host_{}, device_{};
  int64_t lanes_ = 0, max_positions_ = 0;
  int64_t rows_ = 0, outputs_ = 0, lane_ = 0;  // of the lanes that have their rows, and the next lane
};

}  // namespace redrafter
