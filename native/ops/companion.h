// The CUDA library that lies beside the addon (cuda_entry.h), opened at run time: the addon itself needs no
// CUDA and runs where there is none. Before it opens the library, a program beside it (native/probe) does,
// and computes on each device: a driver, library or kernel that crashes, hangs or computes wrongly is a
// reason then, and this process lives.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/reason.h"
#include "ops/ops.h"

namespace redrafter {

// Why a device cannot be used. The first call of any thread runs the probe, and where that finds a device
// opens the library, which takes some seconds and at most kProbePatience; what was found stays for the life
// of the process. Where there is no library it takes no time. Never throws.
Reason cuda_status(int32_t device);

// Of which CUDA itself takes what it has to do before the first kernel: more where it compiles PTX.
constexpr std::chrono::milliseconds kProbePatience{30'000};

// The kernels of a device. Throws ERR_BACKEND with the reason when it cannot be used.
const Backend& cuda_backend(int32_t device);

// Another patience than kProbePatience. For tests; before the first call of the others.
void set_probe_patience(std::chrono::milliseconds patience);

}  // namespace redrafter
