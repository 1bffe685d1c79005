#include "engine/session_file.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "base/check.h"
#include "io/text.h"

namespace redrafter {
namespace {

constexpr char kMagic[8] = {'R', 'D', 'R', 'F', 'T', 'S', 'E', 'S'};
constexpr uint32_t kVersion = 1;
constexpr uint64_t kCopyBytes = 1 << 20;

uint64_t header_checksum(const SessionHeader& header) {
  Checksum checksum;
  checksum.update(&header, offsetof(SessionHeader, checksum));
  return checksum.value();
}

int64_t blocks_of(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

void check_cancelled(const std::atomic<bool>& cancelled) {
  REDRAFTER_REQUIRE(!cancelled.load(), "ERR_ABORTED", "the operation was aborted");
}

}  // namespace

void write_session(const std::string& path, const SessionOrigin& origin, const std::vector<int32_t>& tokens,
                   const KvCache& cache, const KvSequence& kv, Stream& stream,
                   const std::atomic<bool>& cancelled) {
  const int64_t layers = cache.shape().layers, blocks = blocks_of(kv.length());
  const size_t block_bytes = static_cast<size_t>(cache.shape().block_floats()) * sizeof(float);
  SessionHeader header = {};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.block_tokens = kBlockTokens;
  header.fingerprint = origin.fingerprint;
  origin.kv.copy(header.kv_origin, sizeof header.kv_origin - 1);
  header.tokens = static_cast<int64_t>(tokens.size());
  header.kv_tokens = kv.length();
  header.kv_bytes = layers * blocks * static_cast<int64_t>(block_bytes);
  header.checksum = header_checksum(header);

  FileWriter file(path);
  Checksum checksum;
  const auto put = [&](const void* data, size_t bytes) {
    checksum.update(data, bytes);
    file.write(data, bytes);
  };
  file.write(&header, sizeof header);
  put(tokens.data(), tokens.size() * sizeof(int32_t));
  std::vector<float> block(static_cast<size_t>(cache.shape().block_floats()));
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (int64_t i = 0; i < blocks; ++i) {
      check_cancelled(cancelled);
      cache.export_block(layer, kv.blocks()[static_cast<size_t>(i)],
                         std::min(kBlockTokens, kv.length() - i * kBlockTokens), block.data(), stream);
      put(block.data(), block_bytes);
    }
  }
  const uint64_t sum = checksum.value();
  file.write(&sum, sizeof sum);
  check_cancelled(cancelled);
  file.commit();
}

void SessionReader::refuse(const char* why) const {
  fail("ERR_SESSION_FILE", "cannot restore ", quote_path(file_.path()), ": ", why);
}

SessionReader::SessionReader(const std::string& path, const SessionOrigin& origin, const KvShape& shape,
                             int64_t vocab, int64_t context_tokens)
    : file_(path) {
  if (file_.bytes() < sizeof header_) refuse("it is too short for a saved session");
  file_.read(0, &header_, sizeof header_);
  if (std::memcmp(header_.magic, kMagic, sizeof kMagic) != 0) refuse("it is not a saved session");
  if (header_.version != kVersion) refuse("it was saved by another version of redrafter, in another format");
  if (header_.checksum != header_checksum(header_)) refuse("its header is damaged");
  REDRAFTER_REQUIRE(header_.fingerprint == origin.fingerprint, "ERR_SESSION_MODEL", "cannot restore ",
                    quote_path(path), ": the session was saved by another model");

  // Nothing below trusts a size before it is checked against the length of the file.
  const uint64_t rest = file_.bytes() - sizeof header_;
  if (header_.tokens < 0 || header_.kv_tokens < 0 || header_.kv_bytes < 0 ||
      header_.kv_tokens > header_.tokens) {
    refuse("its header is damaged");
  }
  const uint64_t tokens = static_cast<uint64_t>(header_.tokens);
  if (tokens > rest / sizeof(int32_t) ||
      rest != tokens * sizeof(int32_t) + static_cast<uint64_t>(header_.kv_bytes) + sizeof(uint64_t)) {
    refuse("its length does not fit its header; it is cut off or something was appended");
  }
  REDRAFTER_REQUIRE(header_.tokens <= context_tokens, "ERR_CONTEXT", "the saved session has ", header_.tokens,
                    " tokens; the context ends at ", context_tokens);
  const bool usable = header_.block_tokens == kBlockTokens &&
                      header_.kv_origin[sizeof header_.kv_origin - 1] == '\0' &&
                      origin.kv.substr(0, sizeof header_.kv_origin - 1) == header_.kv_origin;
  kv_tokens_ = usable ? header_.kv_tokens : 0;
  const int64_t expected =
      shape.layers * blocks_of(kv_tokens_) * shape.block_floats() * static_cast<int64_t>(sizeof(float));
  if (usable && header_.kv_bytes != expected) refuse("its header is damaged");

  tokens_.resize(tokens);
  file_.read(sizeof header_, tokens_.data(), tokens * sizeof(int32_t));
  checksum_.update(tokens_.data(), tokens * sizeof(int32_t));
  if (std::any_of(tokens_.begin(), tokens_.end(), [&](int32_t id) { return id < 0 || id >= vocab; })) {
    refuse("it holds a token id that the model does not have; it is damaged");
  }
}

void SessionReader::read_kv(KvCache& cache, KvSequence& kv, Stream& stream,
                            const std::atomic<bool>& cancelled) {
  uint64_t offset = sizeof header_ + tokens_.size() * sizeof(int32_t);
  uint64_t left = static_cast<uint64_t>(header_.kv_bytes);
  const uint64_t block_bytes = static_cast<uint64_t>(cache.shape().block_floats()) * sizeof(float);
  // KV that cannot be used is read for the checksum only.
  std::vector<float> piece(static_cast<size_t>((kv_tokens_ > 0 ? block_bytes : kCopyBytes) / sizeof(float)));
  const auto blocks = static_cast<uint64_t>(blocks_of(kv_tokens_));
  for (uint64_t index = 0; left > 0; ++index) {
    check_cancelled(cancelled);
    const uint64_t bytes = std::min<uint64_t>(left, piece.size() * sizeof(float));
    file_.read(offset, piece.data(), bytes);
    checksum_.update(piece.data(), bytes);
    if (kv_tokens_ > 0) {
      cache.import_block(static_cast<int64_t>(index / blocks),
                         kv.blocks()[static_cast<size_t>(index % blocks)], piece.data(), stream);
    }
    offset += bytes;
    left -= bytes;
  }
  uint64_t sum = 0;
  file_.read(offset, &sum, sizeof sum);
  if (sum != checksum_.value()) refuse("it is damaged: its checksum does not fit its contents");
  kv.commit(kv_tokens_);
}

}  // namespace redrafter
