#include "model/staging.h"

#include <algorithm>

#include "base/check.h"

namespace redrafter {

Staging::~Staging() {
  try {
    finish();
  } catch (const Error&) {
    // It has been told, or nobody asks any more; the stream has stopped.
  }
}

void* Staging::take(int64_t bytes) {
  Buffer& buffer = buffers_[next_];
  if (buffer.bytes < bytes) {
    buffer = {};  // first, so that both are not held at once
    const int64_t size = std::max(bytes, kSliceBytes);
    buffer = {std::make_unique<HostBuffer>(backend_, static_cast<size_t>(size)), size};
  }
  return buffer.memory->data();
}

}  // namespace redrafter
