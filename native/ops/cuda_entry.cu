// The one function that the CUDA library exports, and what it tells of the driver and its devices.
#include <cuda_runtime.h>

#include <cstring>

#include "ops/cuda.h"
#include "ops/cuda_entry.h"

namespace redrafter {
namespace {

void versions(int32_t* driver, int32_t* runtime) {
  int found = 0;
  *driver = cudaDriverGetVersion(&found) == cudaSuccess ? found : 0;
  *runtime = CUDART_VERSION;
}

int32_t count(const char** error) {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  cudaGetLastError();  // or a launch would report it
  *error = status == cudaSuccess ? nullptr : cudaGetErrorString(status);
  return status == cudaSuccess ? devices : 0;
}

bool describe(int32_t device, CudaDevice* description) {
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) return false;
  static_assert(sizeof description->name == sizeof properties.name);
  std::memcpy(description->name, properties.name, sizeof properties.name);
  description->major = properties.major;
  description->minor = properties.minor;
  return true;
}

// Where the device cannot be selected, the calls that follow fail for the same reason.
void select(int32_t device) { cudaSetDevice(device); }

bool memory(uint64_t* free, uint64_t* total) {
  size_t free_bytes = 0, total_bytes = 0;
  if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) return false;
  *free = free_bytes;
  *total = total_bytes;
  return true;
}

}  // namespace
}  // namespace redrafter

extern "C"
#if defined(_WIN32)
    __declspec(dllexport)
#else
    __attribute__((visibility("default")))
#endif
        const redrafter::CudaEntry* redrafter_cuda_entry() {
  using namespace redrafter;
  static const CudaEntry entry = {cuda_stamp(), cuda_table(), versions, count, describe, select, memory};
  return &entry;
}
