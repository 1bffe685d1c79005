#include "backends.h"

#include "ops/cuda.h"
#include "ops/throwing.h"

namespace redrafter::lab {
namespace {

struct Kernels {
  static const Backend& table() {
    static const Backend kernels = cuda_table();
    return kernels;
  }
  static void enter() {}
  static bool memory(uint64_t*, uint64_t*) { return false; }
};

const Backend* find_kernels(const std::string& device) {
  static const Backend backend = throwing_backend<Kernels>("lab");
  return device == kKernelsDevice ? &backend : nullptr;
}

}  // namespace

void add_kernels_device() { find_more_backends(find_kernels); }

}  // namespace redrafter::lab
