// The kernels that are linked into the lab, as a device of engines.
#pragma once

#include "ops/ops.h"

namespace redrafter::lab {

// "cuda"; "cuda:host" where the lab is built over the emulator.
#if defined(REDRAFTER_SIMT)
inline constexpr const char* kKernelsDevice = "cuda:host";
#else
inline constexpr const char* kKernelsDevice = "cuda";
#endif

// From now on find_backend() knows it.
void add_kernels_device();

}  // namespace redrafter::lab
