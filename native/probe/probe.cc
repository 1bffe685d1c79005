// redrafter_cuda_probe: opens the CUDA library beside it as the addon does (ops/companion.h), asks for
// devices and lets each compute (self_test.h); prints what it found as one line of JSON (ops/probe_report.h)
// and ends with exit code 0. What crashes or hangs here does not in the process that started it.
#include <cstdio>

#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#include <stdlib.h>
#include <windows.h>
#else
#include <signal.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/prctl.h>
#endif
#endif

#include "ops/probe_report.h"
#include "ops/throwing.h"
#include "probe/self_test.h"

namespace redrafter {
namespace {

const CudaEntry* entry = nullptr;
int32_t selected = 0;

struct Selected {
  static const Backend& table() { return entry->table; }
  static void enter() { entry->select(selected); }
  static bool memory(uint64_t* free, uint64_t* total) { return entry->memory(free, total); }
};

void try_device(int32_t number, CudaDeviceStatus* device) {
  selected = number;
  Reason reason = self_test(throwing_backend<Selected>(device->level.c_str()));
  if (reason.code == nullptr) return;
  reason.message = device->name + " fails the self-test: " + reason.message;
  device->reason = std::move(reason);
}

ProbeReport look() {
  ProbeReport report;
  report.missing = open_cuda_library(&entry);
  if (entry == nullptr) return report;
  report.missing = describe_cuda_devices(*entry, &report.devices);
  for (size_t i = 0; i < report.devices.size(); ++i) {
    if (report.devices[i].reason.code == nullptr) try_device(static_cast<int32_t>(i), &report.devices[i]);
  }
  return report;
}

// Standard output for the report alone: whatever else the library prints goes where errors go.
#if defined(_WIN32)
int take_output() {
  SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX | SEM_NOOPENFILEERRORBOX);  // no windows
  const int report = _dup(1);
  _dup2(2, 1);
  _setmode(report, _O_BINARY);
  return report;
}
bool write_all(int to, const std::string& text) {
  return _write(to, text.data(), static_cast<unsigned>(text.size())) == static_cast<int>(text.size());
}
#else
int take_output() {
#if defined(__linux__)
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // nobody would hear the report
#endif
  const int report = dup(STDOUT_FILENO);
  dup2(STDERR_FILENO, STDOUT_FILENO);
  return report;
}
bool write_all(int to, const std::string& text) {
  return write(to, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}
#endif

}  // namespace
}  // namespace redrafter

int main() {
  const int output = redrafter::take_output();
  return redrafter::write_all(output, redrafter::write_report(redrafter::look())) ? 0 : 1;
}
