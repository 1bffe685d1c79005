#include <algorithm>

#include "base/device.cuh"
#include "ops/matmul.h"

namespace redrafter {
namespace {

constexpr int kThreads = 256;

// A piece of a matrix: rows [first_row, first_row + rows), columns [first_col, first_col + cols).
// first_col is a multiple of 16.
struct Piece {
  int64_t first_row, rows, first_col, cols;
};

// One thread per pair of neighbours in k. source: [piece.rows, piece.cols], or null for zeros.
__global__ void matmul_pack_kernel(const uint16_t* source, Matrix w, Piece piece) {
  const int64_t pairs = ceil_to(piece.cols, kFragmentCols) / 2;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= piece.rows * pairs) return;
  const int64_t row = index / pairs, col = index % pairs * 2;
  const auto element = [&](int64_t k) {
    return source == nullptr || k >= piece.cols ? 0u : static_cast<uint32_t>(source[row * piece.cols + k]);
  };
  const int64_t to = fragment_index(piece.first_row + row, piece.first_col + col, w.cols);
  *reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(w.data) + to) = element(col) | element(col + 1) << 16;
}

void pack_piece(const void* source, const Matrix& w, const Piece& piece, Stream& stream) {
  const int64_t threads = piece.rows * ceil_to(piece.cols, kFragmentCols) / 2;
  launch("matmul_pack", matmul_pack_kernel, dim3(static_cast<uint32_t>(ceil_div(threads, kThreads))),
         kThreads, 0, stream, static_cast<const uint16_t*>(source), w, piece);
}

}  // namespace

void matmul_pack_cuda(const PackParams& p, Stream& stream) {
  constexpr int64_t kElement = 2;
  const auto queue = static_cast<cudaStream_t>(stream.cuda);
  const int64_t room = stream.workspace_bytes / kElement / kFragmentCols * kFragmentCols;  // elements
  if (!cuda_ok(room == 0 ? cudaErrorMemoryAllocation : cudaSuccess, "matmul_pack", stream)) return;
  // Through the workspace: whole rows at once, or pieces of one row where not even that fits.
  const int64_t cols = std::min(p.w.cols, room), rows = std::max<int64_t>(room / p.w.cols, 1);
  for (int64_t r = 0; r < p.rows; r += rows) {
    for (int64_t k = 0; k < p.w.cols; k += cols) {
      const Piece piece = {p.first_row + r, std::min(rows, p.rows - r), k, std::min(cols, p.w.cols - k)};
      const char* from = static_cast<const char*>(p.source) + (r * p.w.cols + k) * kElement;
      const auto bytes = static_cast<size_t>(piece.rows * piece.cols * kElement);
      const auto status = cudaMemcpyAsync(stream.workspace, from, bytes, cudaMemcpyHostToDevice, queue);
      if (!cuda_ok(status, "matmul_pack", stream)) return;
      pack_piece(stream.workspace, p.w, piece, stream);
    }
  }
  const int64_t end = p.first_row + p.rows;
  if (end == p.w.rows) {
    pack_piece(nullptr, p.w, {end, ceil_to(end, kFragmentRows) - end, 0, p.w.cols}, stream);
  }
}

}  // namespace redrafter
