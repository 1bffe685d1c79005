#include "ops/tree.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>

namespace redrafter {
namespace {

int32_t narrow(int64_t value) { return static_cast<int32_t>(value); }

// Numbers the nodes of all beams in `unpack`, and notes how probable each is. Returns how many there are.
int64_t number_nodes(const TreePackParams& p, int64_t lane, int32_t* unpack, float* score) {
  const int64_t columns = p.length + 1;
  const int32_t* beams = p.beams + lane * p.width * columns;
  const float* scores = p.scores + lane * p.width * columns;
  int32_t nodes = 0;
  for (int64_t row = 0; row < p.live[lane]; ++row) {
    const int32_t* beam = beams + row * columns;
    // The longest prefix shared with an earlier row; the first such row owns it.
    int64_t shared = 0;
    const int32_t* owner = nullptr;
    for (int64_t earlier = 0; earlier < row; ++earlier) {
      const int32_t* other = beams + earlier * columns;
      int64_t equal = 0;
      while (equal < columns && other[equal] == beam[equal]) ++equal;
      if (equal > shared) {
        shared = equal;
        owner = unpack + earlier * columns;
      }
    }
    int32_t* own = unpack + row * columns;
    std::copy(owner, owner + shared, own);
    for (int64_t column = shared; column < columns; ++column) {
      score[nodes] = column == 0 ? std::numeric_limits<float>::infinity()
                                 : std::min(scores[row * columns + column], score[own[column - 1]]);
      own[column] = nodes++;
    }
  }
  return nodes;
}

// place[n]: the number of node n among those that are kept, or -1. Returns how many are.
int32_t choose_nodes(const TreePackParams& p, int64_t nodes, const float* score, int32_t* place) {
  float least = p.least;
  int64_t equals = nodes;  // with a score of `least`, which may be kept
  if (nodes > p.budget) {
    float* sorted = reinterpret_cast<float*>(place);
    std::copy(score, score + nodes, sorted);
    std::nth_element(sorted, sorted + p.budget - 1, sorted + nodes, std::greater<float>());
    if (sorted[p.budget - 1] >= least) {
      least = sorted[p.budget - 1];
      equals = p.budget - std::count_if(score, score + nodes, [least](float s) { return s > least; });
    }
  }
  int32_t kept = 0;
  for (int64_t n = 0; n < nodes; ++n) {
    place[n] = score[n] > least || (score[n] == least && equals-- > 0) ? kept++ : -1;
  }
  return kept;
}

void pack(const TreePackParams& p, int64_t lane) {
  const int64_t columns = p.length + 1, first = lane * p.budget;
  const int32_t* beams = p.beams + lane * p.width * columns;
  int32_t *token = p.token + first, *parent = p.parent + first, *depth = p.depth + first;
  if (p.live[lane] == 0) {
    token[0] = p.root[lane];
    parent[0] = -1;
    depth[0] = 0;
    p.nodes[lane] = 1;
    return;
  }
  int32_t *unpack = p.unpack + lane * p.width * columns, *place = p.scratch;
  float* score = reinterpret_cast<float*>(p.scratch + 1 + p.width * p.length);
  const int64_t nodes = number_nodes(p, lane, unpack, score);
  p.nodes[lane] = choose_nodes(p, nodes, score, place);
  for (int64_t i = 0; i < p.live[lane] * columns; ++i) {
    const int64_t column = i % columns;
    unpack[i] = place[unpack[i]];
    if (unpack[i] < 0) continue;
    token[unpack[i]] = beams[i];
    parent[unpack[i]] = column == 0 ? -1 : unpack[i - 1];
    depth[unpack[i]] = narrow(column);
  }
}

void put_row(const TreeRowsParams& p, int64_t lane, int64_t n) {
  const int64_t row = p.begin[lane] + n, first = lane * p.budget;
  const bool is_node = n < p.nodes[lane];
  const int32_t committed = p.committed[lane];
  const int32_t depth = is_node ? p.depth[first + n] : 0;
  p.row_token[row] = is_node ? p.token[first + n] : 0;
  p.position[row] = is_node ? committed + depth : -1;
  p.slot[row] = is_node ? committed + narrow(n) : -1;
  p.sequence[row] = narrow(p.first_sequence + lane);
  p.context[row] = is_node ? committed : 0;
  p.tail_begin[row] = narrow(row * p.tail_stride);
  p.choose_position[row] = p.position[row] + 1;
  p.row_parent[row] = is_node ? p.parent[first + n] : -1;
  int32_t* tail = p.tail_slots + row * p.tail_stride;
  for (int32_t node = narrow(n), d = depth; is_node && d >= 0; --d) {
    tail[d] = committed + node;
    node = p.parent[first + node];
  }
}

}  // namespace

void tree_pack_cpu(const TreePackParams& p, Stream&) {
  for (int64_t lane = 0; lane < p.lanes; ++lane) pack(p, lane);
}

void tree_rows_cpu(const TreeRowsParams& p, Stream&) {
  for (int64_t lane = 0; lane < p.lanes; ++lane) {
    for (int64_t n = 0; n < p.begin[lane + 1] - p.begin[lane]; ++n) put_row(p, lane, n);
  }
}

void tree_accept_cpu(const TreeAcceptParams& p, Stream&) {
  for (int64_t lane = 0; lane < p.lanes; ++lane) {
    const int64_t first = p.begin[lane], nodes = p.begin[lane + 1] - first;
    int32_t length = 0;
    for (int32_t node = nodes > 0 ? 0 : -1; node >= 0 && length < p.stride;) {
      const int32_t wanted = p.chosen[first + node];
      p.path[lane * p.stride + length] = node;
      p.emitted[lane * p.stride + length++] = wanted;
      int32_t next = -1;
      // Children come after their parent.
      for (int64_t child = node + 1; wanted >= 0 && next < 0 && child < nodes; ++child) {
        if (p.parent[first + child] == node && p.token[first + child] == wanted) next = narrow(child);
      }
      node = next;
    }
    p.path_length[lane] = length;
  }
}

void keep_hidden_cpu(const KeepHiddenParams& p, Stream&) {
  for (int64_t lane = 0; lane < p.lanes; ++lane) {
    if (p.path_length[lane] == 0) continue;
    const int64_t row = p.begin[lane] + p.path[lane * p.stride + p.path_length[lane] - 1];
    std::memcpy(p.to + p.to_row[lane] * p.hidden, p.hidden_out + row * p.hidden,
                static_cast<size_t>(p.hidden) * sizeof(float));
  }
}

}  // namespace redrafter
