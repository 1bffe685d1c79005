// Time on a device: graphs of many runs, timed by events, the median of several launches. The emulator has a
// clock of the host instead (timing_emulated.cc): its times say nothing, but the paths that take them run.
#pragma once

#include <functional>
#include <string>

#include "case.h"

namespace redrafter::lab {

// Microseconds that the device spends on what `enqueue` puts into the stream, which must be idle.
double span_us(Stream& stream, const std::function<void()>& enqueue);

struct DeviceInfo {
  std::string name;
  bool emulated;  // then its times say nothing, and one of each is enough
  int major, minor, processors, driver;
};
DeviceInfo device_info();

// Why no device can be used, or empty.
std::string missing_device();

// Microseconds of one run: `runs` runs captured into a graph, the median of `repeats` launches of it.
double time_us(const Backend& backend, const Run& run, Stream& stream, int64_t runs, int64_t repeats);
// Of one launch of a graph that has run before: `runs` of them without a gap.
double graph_us(const Backend& backend, void* graph, Stream& stream, int64_t runs);

// Bytes per second, read and written bytes both counted for the copy.
struct Bandwidth {
  double copy, read;
};
Bandwidth measure_bandwidth(const Backend& backend, Stream& stream);

// Throws what was left in the stream.
void check_stream(const Stream& stream);

}  // namespace redrafter::lab
