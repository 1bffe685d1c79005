#include "timing.h"

#include <algorithm>

#include "kernels.h"

namespace redrafter::lab {
namespace {

// So much that no cache holds it.
int64_t bandwidth_bytes(const DeviceInfo& device) { return int64_t{1} << (device.emulated ? 14 : 30); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

void check_stream(const Stream& stream) {
  REDRAFTER_REQUIRE(stream.error == nullptr, "ERR_CUDA", stream.failed, ": ", stream.error);
}

double time_us(const Backend& backend, const Run& run, Stream& stream, int64_t runs, int64_t repeats) {
  run(stream, 0);
  backend.wait(stream);
  check_stream(stream);
  backend.begin_capture(stream);
  for (int64_t turn = 0; turn < runs; ++turn) run(stream, turn);
  void* graph = backend.end_capture(stream);
  check_stream(stream);
  std::vector<double> times;
  for (int64_t i = 0; i < repeats + 1; ++i) {  // the first warms up
    const double us = span_us(stream, [&] { backend.launch_graph(graph, stream); });
    if (i > 0) times.push_back(us / static_cast<double>(runs));
  }
  backend.release_graph(graph);
  return median(times);
}

double graph_us(const Backend& backend, void* graph, Stream& stream, int64_t runs) {
  const double us = span_us(stream, [&] {
    for (int64_t i = 0; i < runs; ++i) backend.launch_graph(graph, stream);
  });
  return us / static_cast<double>(runs);
}

Bandwidth measure_bandwidth(const Backend& backend, Stream& stream) {
  Memory memory(backend, stream);
  const DeviceInfo device = device_info();
  const int64_t bytes = bandwidth_bytes(device), blocks = device.processors * 8;
  void* from = memory.bytes(static_cast<size_t>(bytes));
  void* to = memory.bytes(static_cast<size_t>(bytes));
  const double copy = time_us(
      backend, [=](Stream& s, int64_t) { copy_bytes(to, from, bytes, blocks, s); }, stream, 5, 5);
  const double read = time_us(
      backend, [=](Stream& s, int64_t) { read_bytes(to, from, bytes, blocks, s); }, stream, 5, 5);
  return {2.0 * static_cast<double>(bytes) / copy * 1e6, static_cast<double>(bytes) / read * 1e6};
}

}  // namespace redrafter::lab
