// The CUDA library that lies beside the file this code is part of: the addon, or the program that tries the
// library before the addon opens it (native/probe).
#pragma once

#include <filesystem>
#include <vector>

#include "base/reason.h"
#include "ops/cuda_entry.h"

namespace redrafter {

// As many devices as there are backends for.
constexpr int32_t kMaxCudaDevices = 16;

#if defined(_WIN32)
constexpr const char* kCudaLibraryName = "redrafter_cuda.dll";
constexpr const char* kCudaProbeName = "redrafter_cuda_probe.exe";
#else
constexpr const char* kCudaLibraryName = "redrafter_cuda.so";
constexpr const char* kCudaProbeName = "redrafter_cuda_probe";
#endif

// A file of that name beside this one; empty when that is unknown.
std::filesystem::path beside(const char* name);

// NOT_BUILT when there is no library.
Reason find_cuda_library();

// Opens the library, and never closes it: what it has handed out lives on. Where that fails, *entry stays
// null: COMPANION_FAILED or COMPANION_MISMATCH.
Reason open_cuda_library(const CudaEntry** entry);

struct CudaDeviceStatus {
  Reason reason;
  std::string name;   // as the driver has it
  std::string level;  // "sm_90"
};

// All devices there are, or why there are none: NO_DRIVER, DRIVER_TOO_OLD, NO_DEVICE.
Reason describe_cuda_devices(const CudaEntry& entry, std::vector<CudaDeviceStatus>* devices);

}  // namespace redrafter
