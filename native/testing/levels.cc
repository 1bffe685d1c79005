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

const std::string kEmulated = "cuda:host", kLate = "cuda:late", kHasty = "cuda:hasty-",
                  kPlanted = "cuda:planted-", kFailing = "cuda:failing-", kFailingCpu = "cpu:failing-";

bool begins(const std::string& level, const std::string& with) { return level.rfind(with, 0) == 0; }

// The n of "<op>-<n>", with the op left in `what`.
int64_t number_of(std::string& what) {
  const size_t dash = what.find('-');
  REDRAFTER_REQUIRE(dash != std::string::npos, "ERR_INVALID_ARGUMENT", "no number in ", what);
  const int64_t n = std::strtoll(what.c_str() + dash + 1, nullptr, 10);
  what.resize(dash);
  return n;
}

// Calls until the one that fails; of the others there is no end.
std::atomic<int64_t> allocations_left, host_allocations_left, streams_left;
// Memory that failing_cpu has handed out and not got back.
std::atomic<int64_t> cpu_memory{0};

const Backend& cpu() { return find_backend("cpu"); }

template <auto member, std::atomic<int64_t>& left>
void* cpu_allocate(size_t bytes) {
  REDRAFTER_REQUIRE(--left != 0, "ERR_OOM", "planted: cannot allocate ", bytes, " bytes of memory");
  void* memory = (cpu().*member)(bytes);
  ++cpu_memory;
  return memory;
}

template <auto member>
void cpu_release(void* memory) {
  (cpu().*member)(memory);
  --cpu_memory;
}

const Backend& failing_cpu(std::string op) {
  static const Backend backend = [] {
    Backend table = cpu();
    table.allocate = cpu_allocate<&Backend::allocate, allocations_left>;
    table.allocate_host = cpu_allocate<&Backend::allocate_host, host_allocations_left>;
    table.release = cpu_release<&Backend::release>;
    table.release_host = cpu_release<&Backend::release_host>;
    return table;
  }();
  const int64_t n = number_of(op);
  REDRAFTER_REQUIRE(op == "allocate" || op == "allocate_host", "ERR_INVALID_ARGUMENT", "unknown fault ", op);
  allocations_left = host_allocations_left = INT64_MAX;
  (op == "allocate" ? allocations_left : host_allocations_left) = n;
  return backend;
}

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

void open_late(Stream& stream, StreamUse use) {
  Kernels::table().open_stream(stream, use);
  if (stream.error == nullptr) simt::make_late(stream);
}

struct Late : Kernels {
  static const Backend& table() {
    static const Backend late = [] {
      Backend table = cuda_table();
      table.open_stream = open_late;
      return table;
    }();
    return late;
  }
};

// Does not wait for the n-th time.
std::atomic<int64_t> waits_left;

struct Hasty : Kernels {
  static const Backend& table() {
    static const Backend hasty = [] {
      Backend table = Late::table();
      table.wait = [](Stream& stream) {
        if (--waits_left != 0) Kernels::table().wait(stream);
      };
      return table;
    }();
    return hasty;
  }
};

// Launches of the op, or of graphs, until the one that fails, or captures until the one that a norm fails in;
// of the others there is no end.
std::atomic<int64_t> norms_left, heads_left, exports_left, graphs_left, captures_left;

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

void* fail_allocate(size_t bytes) {
  return --allocations_left == 0 ? nullptr : Kernels::table().allocate(bytes);
}
void* fail_allocate_host(size_t bytes) {
  return --host_allocations_left == 0 ? nullptr : Kernels::table().allocate_host(bytes);
}
void fail_open_stream(Stream& stream, StreamUse use) {
  open_late(stream, use);
  if (--streams_left != 0) return;
  stream.error = "out of memory";
  stream.failed = "open stream";
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
      table.head_top = fail_at<head_top_cuda, heads_left>;
      table.kv_export = fail_at<kv_export_cuda, exports_left>;
      table.launch_graph = fail_graph;
      table.begin_capture = fail_capture;
      table.allocate = fail_allocate;
      table.allocate_host = fail_allocate_host;
      table.open_stream = fail_open_stream;
      return table;
    }();
    return failing;
  }
};

const Backend& failing(std::string op) {
  static const Backend backend = throwing_backend<Failing>("failing");
  const int64_t n = number_of(op);
  std::atomic<int64_t>* left = op == "norm"            ? &norms_left
                               : op == "head_top"      ? &heads_left
                               : op == "kv_export"     ? &exports_left
                               : op == "launch_graph"  ? &graphs_left
                               : op == "capture"       ? &captures_left
                               : op == "allocate"      ? &allocations_left
                               : op == "allocate_host" ? &host_allocations_left
                               : op == "open_stream"   ? &streams_left
                                                       : nullptr;
  REDRAFTER_REQUIRE(left != nullptr, "ERR_INVALID_ARGUMENT", "unknown fault ", op);
  norms_left = heads_left = exports_left = graphs_left = captures_left = INT64_MAX;
  allocations_left = host_allocations_left = streams_left = INT64_MAX;
  *left = n;
  return backend;
}

const Backend& emulated(const std::string& level) {
  static const Backend right = throwing_backend<Kernels>("host");
  if (level == kEmulated) return right;
  if (level == kLate) {
    static const Backend late = throwing_backend<Late>("late");
    return late;
  }
  if (begins(level, kHasty)) {
    static const Backend hasty = throwing_backend<Hasty>("hasty");
    waits_left = std::strtoll(level.c_str() + kHasty.size(), nullptr, 10);
    return hasty;
  }
  if (begins(level, kFailing)) return failing(level.substr(kFailing.size()));
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
  return level == kEmulated || level == kLate || begins(level, kHasty) || begins(level, kPlanted) ||
         begins(level, kFailing);
}

bool is_only_for_tests(const std::string& device) {
  return is_emulated(device) || begins(device, kFailingCpu);
}

int64_t failing_cpu_memory() { return cpu_memory.load(); }

const Backend& level_backend(const std::string& level) {
  if (is_emulated(level)) return emulated(level);
  if (begins(level, kFailingCpu)) return failing_cpu(level.substr(kFailingCpu.size()));
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
