// Kernels and engines at real shapes: whether they are right and, on a device, how long they take; README.md.
#include <cstdio>
#include <cstring>

#include "backends.h"
#include "lossless.h"
#include "measure.h"
#include "ops/cuda.h"
#include "timing.h"

namespace redrafter::lab {
namespace {

constexpr int kUsage = 64, kNoDevice = 2;

int check_invariance(const Options& o, const Backend& backend, Stream& stream) {
  const std::vector<std::string> faults = invariance_faults(shapes_named(o.model), backend, stream);
  for (const std::string& fault : faults) std::printf("%s\n", fault.c_str());
  check_stream(stream);
  std::printf("row invariance: %zu faults\n", faults.size());
  return faults.empty() ? 0 : 1;
}

int run_on_device(const Options& o) {
  const Backend backend = cuda_table();
  BackendStream opened(backend, nullptr);
  Stream& stream = opened.get();
  check_stream(stream);
  if (o.command == "invariance") return check_invariance(o, backend, stream);
  if (o.command == "once") {
    run_once(o, backend, stream);
  } else if (o.command == "rounds") {
    measure_all_rounds(o, backend, stream);
  } else {
    measure_kernels(o, backend, stream);
  }
  check_stream(stream);
  return 0;
}

int run(const Options& o) {
  if (o.command == "floors") {
    print_floors(o);
    return 0;
  }
  if (o.command == "goals") return print_goals(o);
  const bool engine = o.command == "lossless" || o.command == "parity", measures = !engine;
  if (measures && o.device.rfind("cpu", 0) == 0) {
    REDRAFTER_REQUIRE(o.command == "kernels" || o.command == "drafts", "ERR_INVALID_ARGUMENT", o.command,
                      " does not run on the CPU");
    measure_on_cpu(o);
    return 0;
  }
  if (measures || o.device == kKernelsDevice) {
    if (const std::string missing = missing_device(); !missing.empty()) {
      std::fprintf(stderr, "lab: no CUDA device can be used: %s\n", missing.c_str());
      return kNoDevice;
    }
  }
  if (measures) return run_on_device(o);
  add_kernels_device();
  return o.command == "lossless" ? check_lossless(o) : check_parity(o);
}

bool known(const std::string& command) {
  for (const char* each : {"floors", "goals", "lossless", "parity", "once", "invariance", "bandwidth",
                           "kernels", "steps", "drafts", "rounds"}) {
    if (command == each) return true;
  }
  return false;
}

}  // namespace
}  // namespace redrafter::lab

int main(int argc, char** argv) {
  using namespace redrafter::lab;
  if (argc == 2 && (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0)) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  Options options;
  if (!parse(argc, argv, options) || !known(options.command)) {
    std::fputs(kHelp, stderr);
    return kUsage;
  }
  try {
    return run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lab: %s\n", error.what());
    return 1;
  }
}
