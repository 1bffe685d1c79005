// A draft: the prefix tree of the beams, root first, parents before children. Sized once, reused every round.
#pragma once

#include <cstdint>
#include <vector>

namespace redrafter {

struct DraftTree {
  explicit DraftTree(int64_t max_nodes)
      : token(static_cast<size_t>(max_nodes)),
        parent(static_cast<size_t>(max_nodes)),
        depth(static_cast<size_t>(max_nodes)) {
    plant(0);
  }

  // A tree of the root alone: plain decoding.
  void plant(int32_t root) {
    nodes = 1;
    token[0] = root;
    parent[0] = -1;
    depth[0] = 0;
  }

  int64_t nodes = 1;
  std::vector<int32_t> token, parent, depth;
};

// 1 + width * length nodes are enough for any beams of that shape.
constexpr int64_t max_tree_nodes(int64_t width, int64_t length) { return 1 + width * length; }

constexpr int64_t kMaxBeamWidth = 64;
constexpr int64_t kMaxBeamLength = 8;  // drafted tokens, the root not counted

}  // namespace redrafter
