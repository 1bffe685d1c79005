#include "ops/companion.h"

#include <array>
#include <sstream>
#include <utility>

#include "base/check.h"
#include "base/program.h"
#include "ops/probe_report.h"
#include "ops/throwing.h"

namespace redrafter {
namespace {

std::chrono::milliseconds probe_patience = kProbePatience;

std::string text_of(std::chrono::milliseconds time) {
  std::ostringstream text;
  text << static_cast<double>(time.count()) / 1000 << " s";
  return text.str();
}

// What the probe says, or why it says nothing that counts.
ProbeReport run_probe() {
  ProbeReport report;
  const std::filesystem::path probe = beside(kCudaProbeName);
  const ProgramEnd end = run_program(probe, probe_patience);
  const std::string trial = std::string("the trial of the CUDA library (") + kCudaProbeName + ") ";
  if (!end.not_run.empty()) {
    report.missing = {"COMPANION_FAILED", trial + "cannot be started: " + end.not_run};
  } else if (end.timed_out) {
    report.missing = {"COMPANION_HANGS", trial + "did not end within " + text_of(probe_patience)};
  } else if (!end.unnatural.empty()) {
    report.missing = {"COMPANION_CRASHED", trial + "ended with " + end.unnatural};
  } else if (!read_report(end.output, &report)) {
    report = {};
    report.missing = {"COMPANION_FAILED", trial + "gave no answer that can be read"};
  } else if (report.stamp != cuda_stamp()) {
    report = {};
    report.missing = {"COMPANION_MISMATCH", trial + "belongs to another build of redrafter"};
  }
  return report;
}

struct Companion {
  ProbeReport found;
  const CudaEntry* entry = nullptr;  // null when no device can be used
};

Companion open_companion() {
  Companion companion;
  ProbeReport& found = companion.found;
  found.missing = find_cuda_library();
  if (found.missing.code == nullptr) found = run_probe();
  bool usable = false;
  for (const CudaDeviceStatus& device : found.devices) usable = usable || device.reason.code == nullptr;
  if (!usable) return companion;
  const Reason refused = open_cuda_library(&companion.entry);
  if (refused.code != nullptr) found.missing = refused;
  return companion;
}

// Never freed: when the process ends, engines may still run.
const Companion& companion() {
  static const Companion& opened = *new Companion([] {
    try {
      return open_companion();
    } catch (const std::exception& error) {
      Companion none;
      none.found.missing = {"COMPANION_FAILED",
                            std::string("the CUDA library cannot be tried: ") + error.what()};
      return none;
    }
  }());
  return opened;
}

template <int32_t device>
struct CompanionDevice {
  static const Backend& table() { return companion().entry->table; }
  static void enter() { companion().entry->select(device); }
  static bool memory(uint64_t* free, uint64_t* total) { return companion().entry->memory(free, total); }
  static const char* level() {
    const auto& devices = companion().found.devices;
    return static_cast<size_t>(device) < devices.size() ? devices[device].level.c_str() : "";
  }
};

template <int32_t... devices>
std::array<Backend, sizeof...(devices)> make_backends(std::integer_sequence<int32_t, devices...>) {
  return {throwing_backend<CompanionDevice<devices>>(CompanionDevice<devices>::level())...};
}

}  // namespace

Reason cuda_status(int32_t device) {
  const ProbeReport& found = companion().found;
  if (found.missing.code != nullptr) return found.missing;
  const auto count = static_cast<int32_t>(found.devices.size());
  if (device >= 0 && device < count) return found.devices[static_cast<size_t>(device)].reason;
  std::ostringstream text;
  text << "there is no CUDA device " << device << "; the last one is " << count - 1;
  return {"NO_DEVICE", text.str()};
}

const Backend& cuda_backend(int32_t device) {
  const Reason reason = cuda_status(device);
  REDRAFTER_REQUIRE(reason.code == nullptr, "ERR_BACKEND", "CUDA device ", device,
                    " is not available: ", reason.message);
  static const std::array<Backend, kMaxCudaDevices> backends =
      make_backends(std::make_integer_sequence<int32_t, kMaxCudaDevices>());
  return backends[static_cast<size_t>(device)];
}

void set_probe_patience(std::chrono::milliseconds patience) { probe_patience = patience; }

}  // namespace redrafter
