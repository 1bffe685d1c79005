#include "testing/simt/runtime.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

#include "testing/simt/control.h"
#include "testing/simt/machine.h"
#include "testing/simt/memory.h"
#include "testing/simt/stream.h"

using namespace redrafter::simt;

namespace {

std::mutex host_mutex;
std::map<void*, size_t> host_allocations;  // their bytes

// Whether the bytes lie in memory of cudaMallocHost.
bool is_pinned(const void* address, size_t bytes) {
  const std::lock_guard<std::mutex> lock(host_mutex);
  auto found = host_allocations.upper_bound(const_cast<void*>(address));
  if (found == host_allocations.begin()) return false;
  --found;
  const auto offset =
      static_cast<size_t>(static_cast<const char*>(address) - static_cast<char*>(found->first));
  return offset <= found->second && bytes <= found->second - offset;
}

void poison(void* memory, size_t bytes) {
  auto* to = static_cast<char*>(memory);
  for (size_t at = 0; at < bytes; at += sizeof kPoison)
    std::memcpy(to + at, &kPoison, std::min(sizeof kPoison, bytes - at));
}

}  // namespace

size_t redrafter::simt::host_bytes() {
  const std::lock_guard<std::mutex> lock(host_mutex);
  size_t all = 0;
  for (const auto& [memory, bytes] : host_allocations) all += bytes;
  return all;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorLaunchFailure:
      return fault_text();
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

// The device is idle then, as in CUDA: work that waits may use the memory.
cudaError_t cudaFree(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  catch_up_all();
  return free_memory(memory) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (to_device && !in_memory(to, bytes)) return cudaErrorInvalidValue;
  if (from_device && !in_memory(from, bytes)) return cudaErrorInvalidValue;
  if (!defers(stream)) {
    std::memmove(to, from, bytes);
    return cudaSuccess;
  }
  // A graph may be launched at any time: what it copies from and to has to stay where it is.
  const bool records = stream->records != nullptr;
  if (records && !(to_device || is_pinned(to, bytes))) return cudaErrorInvalidValue;
  if (records && !(from_device || is_pinned(from, bytes))) return cudaErrorInvalidValue;
  // Whoever reads it before it is there shall not find what an earlier copy has left.
  if (!to_device && !records) poison(to, bytes);
  const auto run = [=]() -> const char* {
    std::memmove(to, from, bytes);
    return nullptr;
  };
  defer(stream, run, !from_device ? from : !to_device ? to : nullptr, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!in_memory(memory, bytes)) return cudaErrorInvalidValue;
  const auto run = [=]() -> const char* {
    std::memset(memory, value, bytes);
    return nullptr;
  };
  if (defers(stream)) {
    defer(stream, run);
  } else {
    run();
  }
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  *memory = ::operator new(bytes, std::nothrow);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  poison(*memory, bytes);
  const std::lock_guard<std::mutex> lock(host_mutex);
  host_allocations[*memory] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  {
    const std::lock_guard<std::mutex> lock(host_mutex);
    const auto found = host_allocations.find(memory);
    if (found == host_allocations.end()) return cudaErrorInvalidValue;
    drop_work_on(memory, found->second);
    host_allocations.erase(found);
  }
  ::operator delete(memory);
  return cudaSuccess;
}
