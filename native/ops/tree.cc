#include "ops/tree.h"

namespace redrafter {

void tree_pack_cpu(const TreePackParams& p, Stream&) {
  const int64_t columns = p.length + 1;
  int32_t nodes = 0;
  for (int64_t row = 0; row < p.width; ++row) {
    const int32_t* beam = p.beams + row * columns;
    int32_t* unpack = p.unpack + row * columns;
    // The longest prefix shared with an earlier row; the first such row owns it.
    int64_t shared = 0;
    const int32_t* owner = nullptr;
    for (int64_t earlier = 0; earlier < row; ++earlier) {
      const int32_t* other = p.beams + earlier * columns;
      int64_t equal = 0;
      while (equal < columns && other[equal] == beam[equal]) ++equal;
      if (equal > shared) {
        shared = equal;
        owner = p.unpack + earlier * columns;
      }
    }
    for (int64_t column = 0; column < columns; ++column) {
      if (column < shared) {
        unpack[column] = owner[column];
        continue;
      }
      p.token[nodes] = beam[column];
      p.parent[nodes] = column == 0 ? -1 : unpack[column - 1];
      p.depth[nodes] = static_cast<int32_t>(column);
      unpack[column] = nodes++;
    }
  }
  *p.nodes = nodes;
}

void tree_accept_cpu(const TreeAcceptParams& p, Stream&) {
  int32_t length = 0;
  int32_t node = 0;
  while (node >= 0) {
    p.path[length++] = node;
    const int32_t wanted = p.chosen[node];
    int32_t next = -1;
    // Children come after their parent.
    for (int64_t child = node + 1; wanted >= 0 && child < p.nodes; ++child) {
      if (p.parent[child] == node && p.token[child] == wanted) {
        next = static_cast<int32_t>(child);
        break;
      }
    }
    node = next;
  }
  *p.path_length = length;
}

}  // namespace redrafter
