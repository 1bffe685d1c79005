#include "base/device.cuh"
#include "timing.h"

namespace redrafter::lab {
namespace {

void check(cudaError_t status, const char* what) {
  REDRAFTER_REQUIRE(status == cudaSuccess, "ERR_CUDA", what, ": ", cudaGetErrorString(status));
}

struct Event {
  Event() { check(cudaEventCreate(&event), "event"); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(event); }
  cudaEvent_t event = nullptr;
};

}  // namespace

double span_us(Stream& stream, const std::function<void()>& enqueue) {
  const cudaStream_t queue = static_cast<cudaStream_t>(stream.cuda);
  const Event start, end;
  check(cudaEventRecord(start.event, queue), "event");
  enqueue();
  check(cudaEventRecord(end.event, queue), "event");
  check(cudaEventSynchronize(end.event), "kernel");
  check_stream(stream);
  float ms = 0;
  check(cudaEventElapsedTime(&ms, start.event, end.event), "event");
  return 1000.0 * static_cast<double>(ms);
}

DeviceInfo device_info() {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "device");
  int driver = 0;
  check(cudaDriverGetVersion(&driver), "driver");
  return {properties.name, false, properties.major, properties.minor, properties.multiProcessorCount, driver};
}

std::string missing_device() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess) return cudaGetErrorString(status);
  return devices == 0 ? "no device" : "";
}

}  // namespace redrafter::lab
