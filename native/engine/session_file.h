// A saved session: its tokens and their cached keys and values.
//
//   SessionHeader | tokens: int32 [tokens] | KV: layers x blocks x KvShape::block_floats() | checksum: uint64
//
// All little-endian. The header carries a checksum of itself, so that a damaged header is never taken for the
// one of another model; the last one covers tokens and KV. Files are read as untrusted data.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "base/checksum.h"
#include "io/file.h"
#include "kv/cache.h"

namespace redrafter {

// Which model and cache a session belongs to.
struct SessionOrigin {
  uint64_t fingerprint;  // of the model
  // What the bytes of the KV depend on beside the model: version, backend, level and dtype of the cache.
  // Where they differ, the tokens are restored and their KV is computed anew, as bit-identity across levels
  // is not promised.
  std::string kv;
};

struct SessionHeader {
  char magic[8];
  uint32_t version;
  uint32_t block_tokens;
  uint64_t fingerprint;
  char kv_origin[64];
  int64_t tokens, kv_tokens, kv_bytes;
  uint64_t checksum;  // of the bytes before it
};
static_assert(sizeof(SessionHeader) == 120);

// `kv` must be a snapshot whose blocks nobody writes to, and whose last writes have ended. `stream` must be
// this thread's own. Throws ERR_FILE, and ERR_ABORTED when `cancelled` becomes true.
void write_session(const std::string& path, const SessionOrigin& origin, const std::vector<int32_t>& tokens,
                   const KvCache& cache, const KvSequence& kv, Stream& stream,
                   const std::atomic<bool>& cancelled);

class SessionReader {
 public:
  // Reads header and tokens. Throws ERR_FILE, ERR_SESSION_FILE, ERR_SESSION_MODEL, and ERR_CONTEXT when there
  // are more than `context_tokens` tokens, before memory is taken for them.
  SessionReader(const std::string& path, const SessionOrigin& origin, const KvShape& shape, int64_t vocab,
                int64_t context_tokens);

  const std::vector<int32_t>& tokens() const { return tokens_; }
  // Tokens whose KV the file has and this cache can use; the others must be computed.
  int64_t kv_tokens() const { return kv_tokens_; }

  // Fills the blocks of kv, which must be reserved and seen by nobody else, checks everything, and commits.
  // `stream` must be this thread's own.
  // Throws ERR_FILE, ERR_SESSION_FILE, and ERR_ABORTED when `cancelled` becomes true.
  void read_kv(KvCache& cache, KvSequence& kv, Stream& stream, const std::atomic<bool>& cancelled);

 private:
  [[noreturn]] void refuse(const char* why) const;

  File file_;
  SessionHeader header_;
  Checksum checksum_;
  std::vector<int32_t> tokens_;
  int64_t kv_tokens_ = 0;
};

}  // namespace redrafter
