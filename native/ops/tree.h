// Draft beams packed into prefix trees, one for each lane; the rows they bring into a pass; the walk that
// accepts a path. All ops give the same on every backend. In CUDA a tree is packed in one block, whose shared
// memory (about 12 bytes for each beam token) has to hold the beams.
#pragma once
#include "base/tensor.h"

namespace redrafter {

// Beams of equal length share prefixes: a node is emitted once, by the first row that has its prefix, in row
// order, so nodes are in trie insertion order, parents before children, and node 0 is the root.
//
// Of them, the `budget` most probable are kept, the root first of all, and none that is less probable than
// `least`; of equals, those that come first. A node is as probable as the score of the row that emits it
// says, and never more than its parent: so parents of what is kept are kept, and the rest is a tree in the
// same order.
struct TreePackParams {
  const int32_t* beams;  // [lanes, width, length + 1]; column 0 is the root, the same in a lane's live rows
  const float* scores;   // [lanes, width, length + 1] as beam search leaves them; no NaN in live rows. Column
                         // 0 is not read.
  const int32_t* root;   // [lanes] the tree of a lane with no live row
  const int32_t* live;   // [lanes] rows to pack, the first of each lane
  int64_t lanes, width, length;
  int64_t budget;  // 1 .. 1 + width * length; the last keeps all nodes
  float least;     // -infinity keeps nodes of any probability
  // [lanes, budget] out, of which nodes[lane] are written.
  int32_t* token;
  int32_t* parent;   // -1 for the root
  int32_t* depth;    // 0 for the root
  int32_t* unpack;   // [lanes, width, length + 1] out: node of beam token (row, column) of live rows, or -1
  int32_t* nodes;    // [lanes] out: number of nodes
  int32_t* scratch;  // [2 * (1 + width * length)]; CUDA has no use for it
};

void tree_pack_cpu(const TreePackParams&, Stream&);
void tree_pack_cuda(const TreePackParams&, Stream&);

// The rows that trees bring into a pass. Node n of a lane is row begin[lane] + n: it sits at position
// committed + depth, in slot committed + n, and sees the committed positions and its own path. Rows up to
// begin[lane + 1] that are no nodes are inert (see Batch): token 0, and no parent.
struct TreeRowsParams {
  const int32_t *token, *parent, *depth, *nodes;  // as tree_pack leaves them, [lanes, budget] the first three
  int64_t lanes, budget;
  const int32_t* begin;      // [lanes + 1] rows of the pass; of a lane none, or at least nodes[lane]
  const int32_t* committed;  // [lanes] tokens in the cache
  int64_t first_sequence;    // sequence of lane 0; the others follow
  int64_t tail_stride;       // tail_slots per row of the pass, more than any node is deep
  // [*] out, the arrays of Batch, and what choosing and accepting want to know of each row.
  int32_t *row_token, *position, *slot, *sequence, *context, *tail_begin, *tail_slots;
  int32_t *choose_position, *row_parent;  // position + 1; parent as a node of the lane, or -1
};

void tree_rows_cpu(const TreeRowsParams&, Stream&);
void tree_rows_cuda(const TreeRowsParams&, Stream&);

// From the root, follow the child that equals the target's token until none does; of equal children, the
// first. A lane without nodes has an empty path.
struct TreeAcceptParams {
  const int32_t* token;   // [*] of the nodes of all lanes
  const int32_t* parent;  // [*] node of the same lane, or -1
  const int32_t* chosen;  // [*] the target's token after each node; -1 stops the walk
  const int32_t* begin;   // [lanes + 1] lane l has nodes begin[l] .. begin[l + 1] - 1, its root first
  int64_t lanes, stride;  // a path has at most `stride` nodes, at least 1
  int32_t* path;          // [lanes, stride] out: nodes walked, path[0] = 0
  int32_t* emitted;       // [lanes, stride] out: the target's token after each of them
  int32_t* path_length;   // [lanes] out: accepted drafted tokens + 1; 0 without nodes
};

void tree_accept_cpu(const TreeAcceptParams&, Stream&);
void tree_accept_cuda(const TreeAcceptParams&, Stream&);

// Row to_row[l] of `to` takes the hidden state of the last node of lane l's path. Nothing is kept of a lane
// whose path is empty.
struct KeepHiddenParams {
  const float* hidden_out;     // [*, hidden] of the nodes of all lanes
  const int32_t* begin;        // [lanes + 1]
  const int32_t* path;         // [lanes, stride]
  const int32_t* path_length;  // [lanes]
  const int32_t* to_row;       // [lanes], all different where something is kept
  float* to;                   // [*, hidden]
  int64_t lanes, stride, hidden;
};

void keep_hidden_cpu(const KeepHiddenParams&, Stream&);
void keep_hidden_cuda(const KeepHiddenParams&, Stream&);

}  // namespace redrafter
