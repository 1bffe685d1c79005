#include <algorithm>
#include <numeric>

#include "base/device.cuh"
#include "timing.h"

namespace redrafter::lab {
namespace {

void check(cudaError_t status, const char* what) {
  REDRAFTER_REQUIRE(status == cudaSuccess, "ERR_CUDA", what, ": ", cudaGetErrorString(status));
}

__global__ void copy_kernel(uint4* to, const uint4* from, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step)
    to[i] = from[i];
}

__global__ void read_kernel(uint32_t* to, const uint4* from, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  uint32_t sum = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const uint4 v = from[i];
    sum ^= v.x ^ v.y ^ v.z ^ v.w;
  }
  if (sum == 0x9e3779b9u) *to = sum;  // keeps the reads
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

double time_us(const Run& run, Stream& stream, int64_t runs, int64_t repeats) {
  const cudaStream_t queue = static_cast<cudaStream_t>(stream.cuda);
  run(stream, 0);
  check(cudaStreamSynchronize(queue), "first run");
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t launchable = nullptr;
  check(cudaStreamBeginCapture(queue, cudaStreamCaptureModeThreadLocal), "capture");
  for (int64_t turn = 0; turn < runs; ++turn) run(stream, turn);
  check(cudaStreamEndCapture(queue, &graph), "capture");
  check(cudaGraphInstantiate(&launchable, graph, 0), "graph");
  cudaEvent_t start = nullptr, end = nullptr;
  check(cudaEventCreate(&start), "event");
  check(cudaEventCreate(&end), "event");
  std::vector<double> times;
  for (int64_t i = 0; i < repeats + 1; ++i) {  // the first warms up
    check(cudaEventRecord(start, queue), "event");
    check(cudaGraphLaunch(launchable, queue), "graph");
    check(cudaEventRecord(end, queue), "event");
    check(cudaEventSynchronize(end), "kernel");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, start, end), "event");
    if (i > 0) times.push_back(1000.0 * static_cast<double>(ms) / static_cast<double>(runs));
  }
  cudaEventDestroy(start);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(launchable);
  cudaGraphDestroy(graph);
  REDRAFTER_REQUIRE(stream.error == nullptr, "ERR_CUDA", stream.failed, ": ", stream.error);
  return median(times);
}

Bandwidth measure_bandwidth(const Backend& backend, Stream& stream) {
  Memory memory(backend, stream);
  const int64_t bytes = int64_t{1} << 30, count = bytes / 16;
  auto* from = static_cast<uint4*>(memory.bytes(static_cast<size_t>(bytes)));
  auto* to = static_cast<uint4*>(memory.bytes(static_cast<size_t>(bytes)));
  const dim3 grid(static_cast<unsigned>(device_info().processors * 8)), block(512);
  const double copy =
      time_us([=](Stream& s, int64_t) { launch("copy", copy_kernel, grid, block, 0, s, to, from, count); },
              stream, 5, 5);
  const double read = time_us(
      [=](Stream& s, int64_t) {
        launch("read", read_kernel, grid, block, 0, s, reinterpret_cast<uint32_t*>(to), from, count);
      },
      stream, 5, 5);
  return {2.0 * static_cast<double>(bytes) / copy * 1e6, static_cast<double>(bytes) / read * 1e6};
}

DeviceInfo device_info() {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "device");
  int driver = 0;
  check(cudaDriverGetVersion(&driver), "driver");
  return {properties.name, properties.major, properties.minor, properties.multiProcessorCount, driver};
}

std::string missing_device() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess) return cudaGetErrorString(status);
  return devices == 0 ? "no device" : "";
}

}  // namespace redrafter::lab
