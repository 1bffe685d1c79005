#include "testing/levels.h"

#include <atomic>
#include <cstdlib>

#include "base/check.h"
#include "ops/companion.h"
#if defined(REDRAFTER_HAS_SIMT)
#include "ops/cuda.h"
#include "ops/throwing.h"
#include "testing/simt/control.h"
#include "testing/simt/planted_ops.h"
#endif

namespace redrafter::testing {
namespace {

const std::string kEmulated = "cuda:host", kPlanted = "cuda:planted-", kFailing = "cuda:failing-";

#if defined(REDRAFTER_HAS_SIMT)

struct Kernels {
  static const Backend& table() {
    static const Backend kernels = cuda_table();
    return kernels;
  }
  static void enter() {}
  static bool memory(uint64_t*, uint64_t*) { return false; }
};

// The table with the fault that was asked for last: a test calls one op at a time.
struct Faulty : Kernels {
  static Backend& table() {
    static Backend kernels;
    return kernels;
  }
};

// Launches of the op, or of graphs, until the one that fails, or captures until the one that a norm fails in;
// of the others there is no end.
std::atomic<int64_t> norms_left, exports_left, graphs_left, captures_left;

void count_down(std::atomic<int64_t>& left, Stream& stream) {
  if (stream.error != nullptr || --left != 0) return;
  stream.error = "a planted fault";
  stream.failed = "planted";
}

template <auto op, std::atomic<int64_t>& left, typename Params>
void fail_at(const Params& params, Stream& stream) {
  count_down(left, stream);
  op(params, stream);
}

void fail_capture(Stream& stream) {
  if (--captures_left == 0) norms_left = 1;
  Kernels::table().begin_capture(stream);
}

void fail_graph(void* graph, Stream& stream) {
  count_down(graphs_left, stream);
  Kernels::table().launch_graph(graph, stream);
}

struct Failing : Kernels {
  static const Backend& table() {
    static const Backend failing = [] {
      Backend table = cuda_table();
      table.norm = fail_at<norm_cuda, norms_left>;
      table.kv_export = fail_at<kv_export_cuda, exports_left>;
      table.launch_graph = fail_graph;
      table.begin_capture = fail_capture;
      return table;
    }();
    return failing;
  }
};

const Backend& failing(const std::string& fault) {
  static const Backend backend = throwing_backend<Failing>("failing");
  const size_t dash = fault.find('-');
  const std::string op = fault.substr(0, dash);
  std::atomic<int64_t>* left = op == "norm"           ? &norms_left
                               : op == "kv_export"    ? &exports_left
                               : op == "launch_graph" ? &graphs_left
                               : op == "capture"      ? &captures_left
                                                      : nullptr;
  REDRAFTER_REQUIRE(dash != std::string::npos && left != nullptr, "ERR_INVALID_ARGUMENT", "unknown fault ",
                    fault);
  norms_left = exports_left = graphs_left = captures_left = INT64_MAX;
  *left = std::strtoll(fault.c_str() + dash + 1, nullptr, 10);
  return backend;
}

const Backend& emulated(const std::string& level) {
  static const Backend right = throwing_backend<Kernels>("host");
  if (level == kEmulated) return right;
  if (level.rfind(kFailing, 0) == 0) return failing(level.substr(kFailing.size()));
  static Backend wrong;
  Faulty::table() = cuda_table();
  REDRAFTER_REQUIRE(plant(level.substr(kPlanted.size()), Faulty::table()), "ERR_INVALID_ARGUMENT",
                    "unknown level ", level);
  wrong = throwing_backend<Faulty>("planted");
  return wrong;
}

#else

const Backend& emulated(const std::string& level) {
  fail("ERR_BACKEND", "level ", level, " is not available: the tests were built without the emulator");
}

#endif

}  // namespace

bool is_emulated(const std::string& level) {
  return level == kEmulated || level.rfind(kPlanted, 0) == 0 || level.rfind(kFailing, 0) == 0;
}

const Backend& level_backend(const std::string& level) {
  if (is_emulated(level)) return emulated(level);
  return level == "cuda" ? cuda_backend(0) : find_backend("cpu:" + level);
}

#if defined(REDRAFTER_HAS_SIMT)
void set_order(uint64_t seed) { simt::set_seed(seed); }
void forbid(const void* memory, size_t bytes) { simt::forbid(memory, bytes); }
#else
void set_order(uint64_t) {}
void forbid(const void*, size_t) {}
#endif

}  // namespace redrafter::testing
