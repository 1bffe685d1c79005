#include "base/device.cuh"
#include "ops/tree.h"

namespace redrafter {
namespace {

constexpr int kThreads = 512;

// Step by step the oracle asks for the longest prefix shared with an earlier row; here every pair of rows is
// compared at once, and each beam token keeps the first row that has its prefix. A row's own nodes are its
// last tokens, so the number of a node is known from how many nodes the rows before have. What is left out is
// found by comparing each node with all others: there are some hundred at most.
__global__ void __launch_bounds__(kThreads) tree_pack_kernel(TreePackParams p) {
  const int64_t lane = blockIdx.x;
  const int width = p.live[lane], columns = static_cast<int>(p.length) + 1;
  p.beams += lane * p.width * columns, p.scores += lane * p.width * columns;
  p.unpack += lane * p.width * columns;
  p.token += lane * p.budget, p.parent += lane * p.budget, p.depth += lane * p.budget;
  if (width == 0) {
    if (threadIdx.x == 0) p.token[0] = p.root[lane], p.parent[0] = -1, p.depth[0] = 0, p.nodes[lane] = 1;
    return;
  }
  const int thread = static_cast<int>(threadIdx.x);
  int32_t* first = dynamic_shared<int32_t>();  // [width, columns] the first row with this prefix
  int32_t* shared = first + width * columns;   // [width] columns shared with earlier rows
  int32_t* begin = shared + width;             // [width + 1] nodes of earlier rows
  float* score = reinterpret_cast<float*>(begin + width + 1);           // [nodes]
  int32_t* kept = reinterpret_cast<int32_t*>(score) + width * columns;  // [nodes]

  for (int i = thread; i < width * columns; i += kThreads) first[i] = i / columns;
  __syncthreads();
  for (int pair = thread; pair < width * width; pair += kThreads) {
    const int row = pair / width, earlier = pair % width;
    if (earlier >= row) continue;
    const int32_t *beam = p.beams + row * columns, *other = p.beams + earlier * columns;
    for (int column = 0; column < columns && beam[column] == other[column]; ++column) {
      atomicMin(&first[row * columns + column], earlier);
    }
  }
  __syncthreads();
  for (int row = thread; row < width; row += kThreads) {
    int count = 0;
    while (count < columns && first[row * columns + count] < row) ++count;
    shared[row] = count;
  }
  __syncthreads();
  for (int row = thread; row < width; row += kThreads) {
    int nodes = 0;
    for (int earlier = 0; earlier < row; ++earlier) nodes += columns - shared[earlier];
    begin[row] = nodes;
    if (row == width - 1) begin[width] = nodes + columns - shared[row];
  }
  __syncthreads();
  const int nodes = begin[width];
  const auto node_of = [&](int row, int column) {
    const int owner = first[row * columns + column];
    return begin[owner] + column - shared[owner];
  };
  for (int i = thread; i < width * columns; i += kThreads) {
    const int row = i / columns, column = i % columns;
    if (column < shared[row]) continue;
    float least = INFINITY;
    for (int at = 1; at <= column; ++at) {
      least = fminf(least, p.scores[first[row * columns + at] * columns + at]);
    }
    score[node_of(row, column)] = least;
  }
  __syncthreads();
  for (int node = thread; node < nodes; node += kThreads) {
    const float own = score[node];
    int before = 0;
    for (int other = 0; other < nodes; ++other) {
      before += score[other] > own || (score[other] == own && other < node) ? 1 : 0;
    }
    kept[node] = before < p.budget && own >= p.least ? 1 : 0;
  }
  __syncthreads();
  int32_t* place = reinterpret_cast<int32_t*>(score);  // [nodes] the scores are done with
  for (int node = thread; node < nodes; node += kThreads) {
    int before = 0;
    for (int earlier = 0; earlier < node; ++earlier) before += kept[earlier];
    place[node] = kept[node] != 0 ? before : -1;
    if (node == nodes - 1) p.nodes[lane] = before + kept[node];
  }
  __syncthreads();
  for (int i = thread; i < width * columns; i += kThreads) {
    const int row = i / columns, column = i % columns, node = place[node_of(row, column)];
    p.unpack[i] = node;
    if (column < shared[row] || node < 0) continue;
    p.token[node] = p.beams[i];
    p.parent[node] = column == 0 ? -1 : place[node_of(row, column - 1)];
    p.depth[node] = column;
  }
}

__global__ void __launch_bounds__(kThreads) tree_rows_kernel(TreeRowsParams p) {
  const int64_t lane = blockIdx.x, first = lane * p.budget;
  const int32_t begin = p.begin[lane], rows = p.begin[lane + 1] - begin, committed = p.committed[lane];
  for (int32_t n = static_cast<int32_t>(threadIdx.x); n < rows; n += kThreads) {
    const int64_t row = begin + n;
    const bool is_node = n < p.nodes[lane];
    const int32_t depth = is_node ? p.depth[first + n] : 0;
    const int32_t position = is_node ? committed + depth : -1;
    p.row_token[row] = is_node ? p.token[first + n] : 0;
    p.position[row] = position;
    p.slot[row] = is_node ? committed + n : -1;
    p.sequence[row] = static_cast<int32_t>(p.first_sequence + lane);
    p.context[row] = is_node ? committed : 0;
    p.tail_begin[row] = static_cast<int32_t>(row * p.tail_stride);
    p.choose_position[row] = position + 1;
    p.row_parent[row] = is_node ? p.parent[first + n] : -1;
    int32_t* tail = p.tail_slots + row * p.tail_stride;
    for (int32_t node = n, d = depth; is_node && d >= 0; --d) {
      tail[d] = committed + node;
      node = p.parent[first + node];
    }
  }
}

// A block per lane. Each step it looks at all nodes behind the current one and takes the first that fits.
__global__ void __launch_bounds__(kThreads) tree_accept_kernel(TreeAcceptParams p) {
  __shared__ int32_t next[2];  // of even and of odd steps: one is cleared while the other is in use
  const int64_t lane = blockIdx.x, first = p.begin[lane];
  const int32_t none = p.begin[lane + 1] - p.begin[lane];
  if (threadIdx.x < 2) next[threadIdx.x] = none;
  __syncthreads();
  int32_t node = 0, length = 0;
  for (; node < none && length < p.stride; ++length) {
    const int32_t wanted = p.chosen[first + node];
    int32_t* found = &next[length % 2];
    for (int32_t child = node + 1 + static_cast<int32_t>(threadIdx.x); wanted >= 0 && child < none;
         child += kThreads) {
      if (p.parent[first + child] != node || p.token[first + child] != wanted) continue;
      atomicMin(found, child);
      break;
    }
    if (threadIdx.x == 0) {
      p.path[lane * p.stride + length] = node;
      p.emitted[lane * p.stride + length] = wanted;
    }
    __syncthreads();
    node = *found;
    __syncthreads();
    if (threadIdx.x == 0) *found = none;
  }
  if (threadIdx.x == 0) p.path_length[lane] = length;
}

__global__ void __launch_bounds__(kThreads) keep_hidden_kernel(KeepHiddenParams p) {
  const int64_t lane = blockIdx.x;
  if (p.path_length[lane] == 0) return;
  const int64_t row = p.begin[lane] + p.path[lane * p.stride + p.path_length[lane] - 1];
  float* to = p.to + p.to_row[lane] * p.hidden;
  for (int64_t i = threadIdx.x; i < p.hidden; i += kThreads) to[i] = p.hidden_out[row * p.hidden + i];
}

}  // namespace

void tree_pack_cuda(const TreePackParams& p, Stream& stream) {
  const int64_t shared =
      (3 * p.width * (p.length + 1) + 2 * p.width + 1) * static_cast<int64_t>(sizeof(int32_t));
  launch("tree_pack", tree_pack_kernel, dim3(static_cast<unsigned>(p.lanes)), dim3(kThreads),
         static_cast<size_t>(shared), stream, p);
}

void tree_rows_cuda(const TreeRowsParams& p, Stream& stream) {
  launch("tree_rows", tree_rows_kernel, dim3(static_cast<unsigned>(p.lanes)), dim3(kThreads), 0, stream, p);
}

void tree_accept_cuda(const TreeAcceptParams& p, Stream& stream) {
  launch("tree_accept", tree_accept_kernel, dim3(static_cast<unsigned>(p.lanes)), dim3(kThreads), 0, stream,
         p);
}

void keep_hidden_cuda(const KeepHiddenParams& p, Stream& stream) {
  launch("keep_hidden", keep_hidden_kernel, dim3(static_cast<unsigned>(p.lanes)), dim3(kThreads), 0, stream,
         p);
}

}  // namespace redrafter
