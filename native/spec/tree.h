// Draft trees: the prefix trees of the beams of each lane, root first, parents before children.
#pragma once

#include <cstdint>

namespace redrafter {

constexpr int64_t kMaxBeamWidth = 64;
constexpr int64_t kMaxBeamLength = 8;  // drafted tokens, the root not counted

// 1 + width * length nodes are enough for any beams of that shape.
constexpr int64_t max_tree_nodes(int64_t width, int64_t length) { return 1 + width * length; }

// The trees of several lanes, in the memory of the backend.
struct DraftTrees {
  int32_t *token, *parent, *depth;  // [lanes, budget], of which nodes[lane] are written
  int32_t* nodes;                   // [lanes]
};

}  // namespace redrafter
