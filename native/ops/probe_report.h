// What redrafter_cuda_probe prints, one line of JSON, and how the addon reads it. Both sides are of one
// build, which the stamp proves; whatever else comes is refused as a whole.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ops/companion_library.h"

namespace redrafter {

struct ProbeReport {
  uint64_t stamp = cuda_stamp();
  Reason missing;  // with a code when no device could be asked
  std::vector<CudaDeviceStatus> devices;
};

std::string write_report(const ProbeReport& report);

// False when the text is not exactly what write_report makes, up to the stamp, which is not judged.
bool read_report(std::string_view text, ProbeReport* report);

}  // namespace redrafter
