#include "testing/simt/runtime.h"

#include <cstring>
#include <map>
#include <mutex>
#include <new>

#include "testing/simt/control.h"
#include "testing/simt/graph.h"
#include "testing/simt/memory.h"

using namespace redrafter::simt;

namespace {

std::mutex pinned_mutex;
std::map<char*, size_t> pinned_memory;

// Whether the bytes lie in memory of cudaMallocHost.
bool in_pinned(const void* address, size_t bytes) {
  const std::lock_guard<std::mutex> lock(pinned_mutex);
  char* at = static_cast<char*>(const_cast<void*>(address));
  auto found = pinned_memory.upper_bound(at);
  if (found == pinned_memory.begin()) return false;
  --found;
  const size_t offset = static_cast<size_t>(at - found->first);
  return offset <= found->second && bytes <= found->second - offset;
}

}  // namespace

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorLaunchFailure:
      return graph_fault();
  }
  return "unrecognized error code";
}

cudaError_t cudaGetLastError() { return cudaSuccess; }  // every call has reported its own

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  *memory = nullptr;
  if (bytes == 0) return cudaSuccess;
  *memory = allocate_memory(bytes);
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  return memory == nullptr || free_memory(memory) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const auto in_place = [=] {
    return (!to_device || in_memory(to, bytes)) && (!from_device || in_memory(from, bytes));
  };
  if (!in_place()) return cudaErrorInvalidValue;
  const auto is_pinned = [=] {
    return (to_device || in_pinned(to, bytes)) && (from_device || in_pinned(from, bytes));
  };
  const bool pinned = is_pinned();
  const auto run = [=]() -> const char* {
    if (!in_place() || (pinned && !is_pinned())) return "a copy came after its memory had gone";
    std::memmove(to, from, bytes);
    return nullptr;
  };
  if (stream == nullptr) return run(), cudaSuccess;
  if (stream->records != nullptr) {
    if (!pinned) return cudaErrorInvalidValue;
    stream->records->work.push_back(run);
    return cudaSuccess;
  }
  if (pinned) return stream->put_off.push_back(run), cudaSuccess;
  if (const cudaError_t error = finish_work(stream); error != cudaSuccess) return error;
  return run(), cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!in_memory(memory, bytes)) return cudaErrorInvalidValue;
  if (stream != nullptr && stream->records != nullptr) return cudaErrorInvalidValue;  // nobody has needed it
  if (const cudaError_t error = finish_work(stream); error != cudaSuccess) return error;
  std::memset(memory, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  *memory = ::operator new(bytes, std::nothrow);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  const std::lock_guard<std::mutex> lock(pinned_mutex);
  pinned_memory[static_cast<char*>(*memory)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  const std::lock_guard<std::mutex> lock(pinned_mutex);
  if (pinned_memory.erase(static_cast<char*>(memory)) == 0) return cudaErrorInvalidValue;
  ::operator delete(memory);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream != nullptr && stream->records != nullptr) return cudaErrorInvalidValue;
  return finish_work(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
