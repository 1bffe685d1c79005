// The CUDA column of the op table, its memory and its streams. The only file of the backend that allocates;
// ops get what they need through Stream. Nothing here throws: a failed call is noted in the stream
// (device.cuh), allocate returns null, and whoever calls across the border of the companion library turns
// both into errors.
#include "base/device.cuh"
#include "ops/cuda.h"

namespace redrafter {
namespace {

// Enough for the partial sums and attention partials of 64 rows at 8B shapes; where an op finds it too small
// it takes a variant that needs none, with the same bits.
constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;
constexpr int64_t kCounters = 1 << 16;
constexpr int64_t kCounterBytes = kCounters * static_cast<int64_t>(sizeof(uint32_t));

cudaStream_t queue_of(const Stream& stream) { return static_cast<cudaStream_t>(stream.cuda); }

void* allocate(size_t bytes) {
  void* memory = nullptr;
  return cudaMalloc(&memory, bytes) == cudaSuccess ? memory : nullptr;
}

void release(void* memory) { cudaFree(memory); }

void copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, Stream& stream) {
  if (stream.error != nullptr || bytes == 0) return;
  if (cuda_ok(cudaMemcpyAsync(to, from, bytes, kind, queue_of(stream)), "copy", stream)) {
    cuda_ok(cudaStreamSynchronize(queue_of(stream)), "copy", stream);
  }
}
void upload(void* to, const void* from, size_t bytes, Stream& stream) {
  copy(to, from, bytes, cudaMemcpyHostToDevice, stream);
}
void download(void* to, const void* from, size_t bytes, Stream& stream) {
  copy(to, from, bytes, cudaMemcpyDeviceToHost, stream);
}

void copy_inside(void* to, const void* from, size_t bytes, Stream& stream) {
  if (stream.error != nullptr || bytes == 0) return;
  cuda_ok(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, queue_of(stream)), "copy", stream);
}

void* allocate_host(size_t bytes) {
  void* memory = nullptr;
  return cudaMallocHost(&memory, bytes) == cudaSuccess ? memory : nullptr;
}
void release_host(void* memory) { cudaFreeHost(memory); }

void upload_later(void* to, const void* from, size_t bytes, Stream& stream) {
  if (stream.error != nullptr || bytes == 0) return;
  cuda_ok(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, queue_of(stream)), "copy", stream);
}
void download_later(void* to, const void* from, size_t bytes, Stream& stream) {
  if (stream.error != nullptr || bytes == 0) return;
  cuda_ok(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, queue_of(stream)), "copy", stream);
}

// Other threads may allocate meanwhile: only this thread's calls are captured.
void begin_capture(Stream& stream) {
  if (stream.error != nullptr) return;
  cuda_ok(cudaStreamBeginCapture(queue_of(stream), cudaStreamCaptureModeThreadLocal), "capture", stream);
}

void* end_capture(Stream& stream) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t launchable = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(queue_of(stream), &graph);
  if (cuda_ok(ended, "capture", stream))
    cuda_ok(cudaGraphInstantiate(&launchable, graph, 0), "capture", stream);
  if (graph != nullptr) cudaGraphDestroy(graph);
  return launchable;
}

void launch_graph(void* graph, Stream& stream) {
  if (stream.error != nullptr) return;
  cuda_ok(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), queue_of(stream)), "round", stream);
}

void release_graph(void* graph) { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)); }

// After an error, too: earlier copies may still read memory of the host.
void wait(Stream& stream) { cuda_ok(cudaStreamSynchronize(queue_of(stream)), "wait", stream); }

void open_stream(Stream& stream, StreamUse use) {
  cudaStream_t queue = nullptr;
  if (!cuda_ok(cudaStreamCreateWithFlags(&queue, cudaStreamNonBlocking), "open stream", stream)) return;
  stream.cuda = queue;
  if (use == StreamUse::kCopies) return;
  void* memory = nullptr;
  if (!cuda_ok(cudaMalloc(&memory, static_cast<size_t>(kWorkspaceBytes + kCounterBytes)), "open stream",
               stream))
    return;
  stream.workspace = memory;
  stream.workspace_bytes = kWorkspaceBytes;
  stream.counters = reinterpret_cast<uint32_t*>(static_cast<char*>(memory) + kWorkspaceBytes);
  stream.counter_count = kCounters;
  cuda_ok(cudaMemsetAsync(stream.counters, 0, static_cast<size_t>(kCounterBytes), queue), "open stream",
          stream);
}

void close_stream(Stream& stream) {
  cudaFree(stream.workspace);
  if (stream.cuda != nullptr) cudaStreamDestroy(queue_of(stream));
  stream = Stream{stream.threads};
}

int64_t fragment_bytes(int64_t rows, int64_t cols, DType dtype) {
  return ceil_to(rows, kFragmentRows) * ceil_to(cols, kFragmentCols) *
         static_cast<int64_t>(dtype_bytes(dtype));
}

KvLayer kv_layout(int64_t kv_heads, int64_t head_dim, DType weights) {
  const int64_t stride = kv_heads * kBlockTokens * head_dim_padded(head_dim);
  return {nullptr,  nullptr, weights == DType::kF16 ? DType::kF16 : DType::kBF16, stride, stride,
          kv_heads, head_dim};
}

bool takes(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF16; }

}  // namespace

Backend cuda_table() {
  Backend b{};
  b.name = "cuda";
  b.level = "";
  b.norm = norm_cuda;
  b.act = act_cuda;
  b.adjust = adjust_cuda;
  b.adjust_undo = adjust_undo_cuda;
  b.sample = sample_cuda;
  b.logprob = logprob_cuda;
  b.beam_start = beam_start_cuda;
  b.beam = beam_cuda;
  b.tree_pack = tree_pack_cuda;
  b.tree_rows = tree_rows_cuda;
  b.tree_accept = tree_accept_cuda;
  b.keep_hidden = keep_hidden_cuda;
  b.matmul_pack = matmul_pack_cuda;
  b.embed = embed_cuda;
  b.matmul = matmul_cuda;
  b.rope = rope_cuda;
  b.attention = attention_cuda;
  b.cell = cell_cuda;
  b.mix = mix_cuda;
  b.residual = residual_cuda;
  b.head_top = head_top_cuda;
  b.kv_compact = kv_compact_cuda;
  b.kv_copy_block = kv_copy_block_cuda;
  b.kv_export = kv_export_cuda;
  b.kv_import = kv_import_cuda;
  b.matrix_bytes = fragment_bytes;
  b.kv_layout = kv_layout;
  b.takes = takes;
  b.allocate = allocate;
  b.release = release;
  b.upload = upload;
  b.download = download;
  b.copy = copy_inside;
  b.allocate_host = allocate_host;
  b.release_host = release_host;
  b.upload_later = upload_later;
  b.download_later = download_later;
  b.begin_capture = begin_capture;
  b.end_capture = end_capture;
  b.launch_graph = launch_graph;
  b.release_graph = release_graph;
  b.wait = wait;
  b.open_stream = open_stream;
  b.close_stream = close_stream;
  b.stream_bytes = kWorkspaceBytes + kCounterBytes;
  return b;
}

}  // namespace redrafter
