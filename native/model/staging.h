// The way of weights from files to a backend: two buffers of host memory that it copies from while nobody
// waits. While one slice is under way, the next one is read and converted in the other buffer.
#pragma once

#include <array>
#include <memory>

#include "ops/ops.h"

namespace redrafter {

class Staging {
 public:
  // Buffers are at least this large, and two of them are all that a load needs beside the weights; nothing
  // of it stays.
  static constexpr int64_t kSliceBytes = 4 << 20;

  Staging(const Backend& backend, Stream& stream) : backend_(backend), stream_(stream) {}
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging();  // after an error, too, nothing reads the buffers any more when they go

  // Memory for the next slice. Nothing reads it.
  void* take(int64_t bytes);

  // `issue` gives what take() has handed out to the stream, for an op or copy that reads it later. Waits for
  // the slice before, whose buffer is the next to be taken: the time to read a slice is its time to arrive.
  template <typename Issue>
  void send(const Issue& issue) {
    backend_.wait(stream_);
    issue();
    next_ = 1 - next_;
  }

  void finish() { backend_.wait(stream_); }  // until the last slice has arrived

 private:
  struct Buffer {
    std::unique_ptr<HostBuffer> memory;
    int64_t bytes = 0;
  };
  const Backend& backend_;
  Stream& stream_;
  std::array<Buffer, 2> buffers_;
  size_t next_ = 0;
};

}  // namespace redrafter
