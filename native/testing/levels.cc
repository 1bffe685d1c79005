#include "testing/levels.h"

#include <map>

#include "base/check.h"
#include "ops/cuda.h"
#include "testing/simt/planted_ops.h"

namespace redrafter::testing {
namespace {

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

const std::string kPlanted = "cuda:planted-";

}  // namespace

bool is_emulated(const std::string& level) { return level == "cuda:host" || level.rfind(kPlanted, 0) == 0; }

const Backend& level_backend(const std::string& level) {
  if (!is_emulated(level)) return find_backend(level.rfind("cuda", 0) == 0 ? level : "cpu:" + level);
  static std::map<std::string, Backend> backends;
  auto found = backends.find(level);
  if (found == backends.end()) {
    Backend table = cuda_table();
    if (level != "cuda:host") plant(level.substr(kPlanted.size()), table);
    found = backends.emplace(level, with_all_ops(table)).first;
  }
  return found->second;
}

}  // namespace redrafter::testing
