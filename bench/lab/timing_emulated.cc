// In place of timing.cu where the kernels run in the emulator.
#include <chrono>

#include "timing.h"

namespace redrafter::lab {

double span_us(Stream& stream, const std::function<void()>& enqueue) {
  const auto start = std::chrono::steady_clock::now();
  enqueue();
  const std::chrono::duration<double, std::micro> spent = std::chrono::steady_clock::now() - start;
  check_stream(stream);
  return spent.count();
}

DeviceInfo device_info() { return {"emulator", true, 0, 0, 1, 0}; }

std::string missing_device() { return ""; }

}  // namespace redrafter::lab
