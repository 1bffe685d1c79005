// Time on a device: graphs of many runs, timed by events, the median of several launches.
#pragma once

#include <string>

#include "case.h"

namespace redrafter::lab {

// Microseconds of one run: `runs` runs captured into a graph, the median of `repeats` launches of it.
double time_us(const Run& run, Stream& stream, int64_t runs, int64_t repeats);

// Bytes per second, read and written bytes both counted for the copy.
struct Bandwidth {
  double copy, read;
};
Bandwidth measure_bandwidth(const Backend& backend, Stream& stream);

struct DeviceInfo {
  std::string name;
  int major, minor, processors, driver;
};
DeviceInfo device_info();

// Why no device can be used, or empty.
std::string missing_device();

}  // namespace redrafter::lab
