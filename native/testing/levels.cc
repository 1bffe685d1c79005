#include "testing/levels.h"

#include <map>

#include "base/check.h"
#if defined(REDRAFTER_HAS_SIMT)
#include "ops/cuda.h"
#include "testing/simt/control.h"
#include "testing/simt/planted_ops.h"
#endif

namespace redrafter::testing {
namespace {

const std::string kEmulated = "cuda:host", kPlanted = "cuda:planted-";

#if defined(REDRAFTER_HAS_SIMT)

// Without this a call of an op that nobody has written would end the process.
Backend with_all_ops(Backend b) {
#define REDRAFTER_OP(op)                                                                            \
  if (b.op == nullptr) {                                                                            \
    b.op = [](const auto&, Stream&) { fail("ERR_BACKEND", "this backend has no op \"" #op "\""); }; \
  }
  REDRAFTER_OP(matmul_pack)
  REDRAFTER_OP(embed)
  REDRAFTER_OP(norm)
  REDRAFTER_OP(matmul)
  REDRAFTER_OP(rope)
  REDRAFTER_OP(attention)
  REDRAFTER_OP(act)
  REDRAFTER_OP(sample)
  REDRAFTER_OP(logprob)
  REDRAFTER_OP(cell)
  REDRAFTER_OP(mix)
  REDRAFTER_OP(residual)
  REDRAFTER_OP(head_top)
  REDRAFTER_OP(beam)
  REDRAFTER_OP(tree_pack)
  REDRAFTER_OP(tree_accept)
  REDRAFTER_OP(kv_compact)
  REDRAFTER_OP(kv_copy_block)
  REDRAFTER_OP(kv_export)
  REDRAFTER_OP(kv_import)
#undef REDRAFTER_OP
  return b;
}

Backend emulated(const std::string& level) {
  Backend table = cuda_table();
  REDRAFTER_REQUIRE(level == kEmulated || plant(level.substr(kPlanted.size()), table), "ERR_INVALID_ARGUMENT",
                    "unknown level ", level);
  return with_all_ops(table);
}

#else

Backend emulated(const std::string& level) {
  fail("ERR_BACKEND", "level ", level, " is not available: the tests were built without the emulator");
}

#endif

}  // namespace

bool is_emulated(const std::string& level) { return level == kEmulated || level.rfind(kPlanted, 0) == 0; }

const Backend& level_backend(const std::string& level) {
  if (!is_emulated(level)) return find_backend(level.rfind("cuda", 0) == 0 ? level : "cpu:" + level);
  static std::map<std::string, Backend> backends;
  auto found = backends.find(level);
  if (found == backends.end()) {
    found = backends.emplace(level, emulated(level)).first;
  }
  return found->second;
}

#if defined(REDRAFTER_HAS_SIMT)
void set_order(uint64_t seed) { simt::set_seed(seed); }
void forbid(const void* memory, size_t bytes) { simt::forbid(memory, bytes); }
void allow(const void* memory, size_t bytes) { simt::allow(memory, bytes); }
#else
void set_order(uint64_t) {}
void forbid(const void*, size_t) {}
void allow(const void*, size_t) {}
#endif

}  // namespace redrafter::testing
