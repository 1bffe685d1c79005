#include "testing/simt/stream.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>

#include "base/tensor.h"
#include "testing/simt/control.h"

namespace redrafter::simt {
namespace {

// Threads have streams of their own, but freeing memory of the device catches up with all.
std::mutex mutex;
std::set<cudaStream_t> late_streams;
std::atomic<uint64_t> early{0};

const char* catch_up_locked(CUstream_st& stream) {
  while (!stream.waiting.empty() && stream.fault == nullptr) {
    const LateWork work = std::move(stream.waiting.front());
    stream.waiting.pop_front();
    stream.fault = work.run();
  }
  stream.waiting.clear();
  return stream.fault;
}

}  // namespace

void make_late(Stream& stream) {
  const std::lock_guard<std::mutex> lock(mutex);
  auto* queue = static_cast<cudaStream_t>(stream.cuda);
  queue->late = true;
  late_streams.insert(queue);
}

uint64_t freed_early() { return early.load(); }

bool defers(cudaStream_t stream) { return stream != nullptr && (stream->records != nullptr || stream->late); }

void defer(cudaStream_t stream, Work work, const void* host, size_t host_bytes) {
  if (stream->records != nullptr) {
    stream->records->work.push_back(std::move(work));
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex);
  stream->waiting.push_back({std::move(work), host, host_bytes});
}

const char* catch_up(cudaStream_t stream) {
  if (stream == nullptr || !stream->late) return nullptr;
  const std::lock_guard<std::mutex> lock(mutex);
  return catch_up_locked(*stream);
}

void catch_up_all() {
  const std::lock_guard<std::mutex> lock(mutex);
  for (cudaStream_t stream : late_streams) catch_up_locked(*stream);
}

void drop_work_on(const void* host, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto* begin = static_cast<const char*>(host);
  for (cudaStream_t stream : late_streams) {
    const bool uses = std::any_of(stream->waiting.begin(), stream->waiting.end(), [&](const LateWork& work) {
      const auto* at = static_cast<const char*>(work.host);
      return at != nullptr && at < begin + bytes && begin < at + work.host_bytes;
    });
    if (!uses) continue;
    ++early;
    stream->fault = "memory of the host was freed before a copy from or to it";
    stream->waiting.clear();
  }
}

}  // namespace redrafter::simt

using namespace redrafter::simt;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream != nullptr && stream->records != nullptr) return cudaErrorInvalidValue;
  return report_fault(catch_up(stream));
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (stream == nullptr) return cudaErrorInvalidValue;
  catch_up(stream);
  {
    const std::lock_guard<std::mutex> lock(mutex);
    late_streams.erase(stream);
  }
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  catch_up_all();
  return cudaSuccess;
}
