// Memory that is sized once and carved many times: the decode round allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/check.h"

namespace redrafter {

// Hands out consecutive, 64-byte aligned pieces of one block of memory. A first pass with a null base
// measures.
class Arena {
 public:
  Arena() = default;
  Arena(void* base, size_t capacity) : base_(static_cast<uint8_t*>(base)), capacity_(capacity) {}

  template <typename T>
  T* take(int64_t count) {
    const size_t begin = used_;
    used_ += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    if (base_ == nullptr) return nullptr;
    REDRAFTER_CHECK(used_ <= capacity_);
    return reinterpret_cast<T*>(base_ + begin);
  }
  size_t used() const { return used_; }

 private:
  uint8_t* base_ = nullptr;
  size_t capacity_ = 0;
  size_t used_ = 0;
};

}  // namespace redrafter
