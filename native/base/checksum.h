// XXH64 with seed 0 (xxHash specification, github.com/Cyan4973/xxHash), fed piece by piece: finds damage and
// tells models apart. It is no protection against somebody who forges a file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace redrafter {

class Checksum {
 public:
  void update(const void* data, size_t bytes);
  void update(const std::string& text) { update(text.data(), text.size()); }
  // Of everything so far; more may follow.
  uint64_t value() const;

 private:
  static constexpr size_t kStripe = 32;

  void stripe(const uint8_t* data);

  std::array<uint64_t, 4> lane_ = {0x60EA27EEADC0B5D6u, 0xC2B2AE3D27D4EB4Fu, 0, 0x61C8864E7A143579u};
  std::array<uint8_t, kStripe> pending_ = {};  // the first total_ % kStripe bytes count
  uint64_t total_ = 0;
};

}  // namespace redrafter
