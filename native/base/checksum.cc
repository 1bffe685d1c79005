#include "base/checksum.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace redrafter {
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87u, kPrime2 = 0xC2B2AE3D27D4EB4Fu,
                   kPrime3 = 0x165667B19E3779F9u, kPrime4 = 0x85EBCA77C2B2AE63u,
                   kPrime5 = 0x27D4EB2F165667C5u;

// Words are little-endian, as on every processor this is built for.
static_assert(std::endian::native == std::endian::little);

template <typename Word>
uint64_t word(const uint8_t* data) {
  Word value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

uint64_t round(uint64_t lane, uint64_t input) { return std::rotl(lane + input * kPrime2, 31) * kPrime1; }

}  // namespace

void Checksum::stripe(const uint8_t* data) {
  for (size_t i = 0; i < lane_.size(); ++i) lane_[i] = round(lane_[i], word<uint64_t>(data + 8 * i));
}

void Checksum::update(const void* data, size_t bytes) {
  const auto* from = static_cast<const uint8_t*>(data);
  const size_t held = static_cast<size_t>(total_ % kStripe);
  total_ += bytes;
  if (held > 0) {
    const size_t taken = std::min(bytes, kStripe - held);
    std::copy_n(from, taken, pending_.begin() + static_cast<std::ptrdiff_t>(held));
    from += taken;
    bytes -= taken;
    if (held + taken < kStripe) return;
    stripe(pending_.data());
  }
  for (; bytes >= kStripe; from += kStripe, bytes -= kStripe) stripe(from);
  std::copy_n(from, bytes, pending_.begin());
}

uint64_t Checksum::value() const {
  uint64_t hash = kPrime5;
  if (total_ >= kStripe) {
    hash =
        std::rotl(lane_[0], 1) + std::rotl(lane_[1], 7) + std::rotl(lane_[2], 12) + std::rotl(lane_[3], 18);
    for (const uint64_t lane : lane_) hash = (hash ^ round(0, lane)) * kPrime1 + kPrime4;
  }
  hash += total_;
  const uint8_t* at = pending_.data();
  const uint8_t* end = at + total_ % kStripe;
  for (; end - at >= 8; at += 8)
    hash = std::rotl(hash ^ round(0, word<uint64_t>(at)), 27) * kPrime1 + kPrime4;
  if (end - at >= 4) {
    hash = std::rotl(hash ^ word<uint32_t>(at) * kPrime1, 23) * kPrime2 + kPrime3;
    at += 4;
  }
  for (; at < end; ++at) hash = std::rotl(hash ^ *at * kPrime5, 11) * kPrime1;
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

}  // namespace redrafter
