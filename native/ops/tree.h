// Draft beams packed into one prefix tree, and the walk that accepts a path of it.
#pragma once
#include "base/tensor.h"

namespace redrafter {

// Beams of equal length share prefixes: a node is emitted once, by the first row that has its prefix, in row
// order, so nodes are in trie insertion order, parents before children, and node 0 is the root.
struct TreePackParams {
  const int32_t* beams;  // [width, length + 1]; column 0 is the root token, the same in every row
  int64_t width, length;
  int32_t* token;   // [1 + width * length] out
  int32_t* parent;  // [1 + width * length] out; -1 for the root
  int32_t* depth;   // [1 + width * length] out; 0 for the root
  int32_t* unpack;  // [width, length + 1] out: node of beam token (row, column)
  int32_t* nodes;   // [1] out: number of nodes
};

void tree_pack_cpu(const TreePackParams&, Stream&);
void tree_pack_cuda(const TreePackParams&, Stream&);

// From the root, follow the child that equals the target's token until none does.
struct TreeAcceptParams {
  const int32_t* token;   // [nodes]
  const int32_t* parent;  // [nodes]
  const int32_t* chosen;  // [nodes] the target's token after each node; -1 stops the walk
  int64_t nodes;
  int32_t* path;         // [nodes] out: nodes walked, path[0] = 0; chosen[path[i]] is the i-th emitted token
  int32_t* path_length;  // [1] out: accepted drafted tokens + 1
};

// Both ops give the same on every backend. In CUDA a tree is packed in one block, whose shared memory
// (width * (length + 3) * 4 bytes) has to hold the beams.
void tree_accept_cpu(const TreeAcceptParams&, Stream&);
void tree_accept_cuda(const TreeAcceptParams&, Stream&);

}  // namespace redrafter
