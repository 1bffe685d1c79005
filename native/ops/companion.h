// The CUDA library that lies beside the addon (cuda_entry.h), opened at run time: the addon itself needs no
// CUDA and runs where there is none.
#pragma once

#include <cstdint>
#include <string>

#include "ops/ops.h"

namespace redrafter {

// Why a CUDA device cannot be used, for a program and for people; a null code when it can.
struct CudaStatus {
  const char* code = nullptr;  // as in lib/system.ts
  std::string message;         // of a device that can be used: its name
};

// The first call of any thread opens the library, and with it the driver, which can take some tenths of a
// second where there is one; what was found stays for the life of the process. Never throws.
CudaStatus cuda_status(int32_t device);

// The kernels of a device, for tests and benchmarks. Throws ERR_BACKEND with the reason when it cannot be
// used.
const Backend& cuda_backend(int32_t device);

}  // namespace redrafter
