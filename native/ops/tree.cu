#include "base/device.cuh"
#include "ops/tree.h"

namespace redrafter {
namespace {

constexpr int kThreads = 512;

// Step by step the oracle asks for the longest prefix shared with an earlier row; here every pair of rows is
// compared at once, and each beam token keeps the first row that has its prefix. A row's own nodes are its
// last tokens, so the number of a node is known from how many nodes the rows before have.
__global__ void __launch_bounds__(kThreads) tree_pack_kernel(TreePackParams p) {
  const int width = static_cast<int>(p.width), columns = static_cast<int>(p.length) + 1;
  const int thread = static_cast<int>(threadIdx.x);
  int32_t* first = dynamic_shared<int32_t>();  // [width, columns] the first row with this prefix
  int32_t* shared = first + width * columns;   // [width] columns shared with earlier rows
  int32_t* begin = shared + width;             // [width] nodes of earlier rows

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
    if (row == width - 1) *p.nodes = nodes + columns - shared[row];
  }
  __syncthreads();
  for (int i = thread; i < width * columns; i += kThreads) {
    const int row = i / columns, column = i % columns;
    const auto node_of = [&](int at) {
      const int owner = first[row * columns + at];
      return begin[owner] + at - shared[owner];
    };
    const int node = node_of(column);
    p.unpack[i] = node;
    if (column < shared[row]) continue;
    p.token[node] = p.beams[i];
    p.parent[node] = column == 0 ? -1 : node_of(column - 1);
    p.depth[node] = column;
  }
}

// Each step the block looks at all nodes behind the current one and takes the first that fits.
__global__ void __launch_bounds__(kThreads) tree_accept_kernel(TreeAcceptParams p) {
  __shared__ int32_t next[2];  // of even and of odd steps: one is cleared while the other is in use
  const int32_t none = static_cast<int32_t>(p.nodes);
  if (threadIdx.x < 2) next[threadIdx.x] = none;
  __syncthreads();
  int32_t node = 0, length = 0;
  for (; node < none; ++length) {
    const int32_t wanted = p.chosen[node];
    int32_t* found = &next[length % 2];
    for (int64_t child = node + 1 + threadIdx.x; wanted >= 0 && child < p.nodes; child += kThreads) {
      if (p.parent[child] != node || p.token[child] != wanted) continue;
      atomicMin(found, static_cast<int32_t>(child));
      break;
    }
    if (threadIdx.x == 0) p.path[length] = node;
    __syncthreads();
    node = *found;
    __syncthreads();
    if (threadIdx.x == 0) *found = none;
  }
  if (threadIdx.x == 0) *p.path_length = length;
}

}  // namespace

void tree_pack_cuda(const TreePackParams& p, Stream& stream) {
  const int64_t shared = p.width * (p.length + 3) * static_cast<int64_t>(sizeof(int32_t));
  launch("tree_pack", tree_pack_kernel, dim3(1), dim3(kThreads), static_cast<size_t>(shared), stream, p);
}

void tree_accept_cuda(const TreeAcceptParams& p, Stream& stream) {
  launch("tree_accept", tree_accept_kernel, dim3(1), dim3(kThreads), 0, stream, p);
}

}  // namespace redrafter
