// The CUDA library with the emulator in the place of a driver: one device, whose kernels are those of the .cu
// files on the host. For the tests of what an addon makes of a library that works, or nearly does. The
// environment says what it does wrong, beside CUDA_VISIBLE_DEVICES, which may be empty:
//   REDRAFTER_SIMT_FAULT        an op with a planted fault (planted_ops.h), or what happens when it is
//   opened:
//                               "abort", "segfault", "exit", "hang"; "talk" prints
//   REDRAFTER_SIMT_FREE_BYTES   how much memory is said to be free
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "ops/cuda.h"
#include "ops/cuda_entry.h"
#include "testing/simt/planted_ops.h"

namespace redrafter {
namespace {

const char* setting(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void versions(int32_t* driver, int32_t* runtime) { *driver = *runtime = 13000; }
int32_t count(const char** error) {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  const bool hidden = visible != nullptr && *visible == '\0';
  *error = hidden ? "no CUDA-capable device is detected" : nullptr;
  return hidden ? 0 : 1;
}
bool describe(int32_t, CudaDevice* description) {
  std::snprintf(description->name, sizeof description->name, "An emulated device");
  description->major = 9;
  description->minor = 0;
  return true;
}
void select(int32_t) {}
bool memory(uint64_t* free, uint64_t* total) {
  *total = uint64_t{1} << 30;
  const char* bytes = setting("REDRAFTER_SIMT_FREE_BYTES");
  *free = *bytes == '\0' ? *total : std::strtoull(bytes, nullptr, 10);
  return true;
}

Backend table() {
  Backend b = cuda_table();
  const std::string fault = setting("REDRAFTER_SIMT_FAULT");
  if (fault == "talk") return std::puts("a library that talks"), b;
  if (fault == "abort") std::abort();
  if (fault == "segfault") std::raise(SIGSEGV);
  if (fault == "exit") std::_Exit(3);
  while (fault == "hang") std::this_thread::sleep_for(std::chrono::seconds(1));
  if (!fault.empty() && !testing::plant(fault, b)) std::abort();
  return b;
}

}  // namespace
}  // namespace redrafter

extern "C" __attribute__((visibility("default"))) const redrafter::CudaEntry* redrafter_cuda_entry() {
  using namespace redrafter;
  static const CudaEntry entry = {cuda_stamp(), table(), versions, count, describe, select, memory};
  return &entry;
}
