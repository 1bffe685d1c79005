// The backends that tests run ops on, by the name of their level: those of the CPU ("oracle", "avx2"), "cuda"
// on a device, and the CUDA column on the emulator of native/testing/simt: "cuda:host";
// "cuda:planted-<fault>" with a wrong kernel (planted_ops.h); or "cuda:failing-<op>-<n>", the n-th launch of
// whose op norm or kv_export leaves an error in its stream, n counted from when the backend was asked for.
#pragma once

#include <cstdint>
#include <string>

#include "ops/ops.h"

namespace redrafter::testing {

// Throws ERR_BACKEND with the reason when the level cannot run here. Ops that a table lacks throw when
// called.
const Backend& level_backend(const std::string& level);

// Whether the level runs on the emulator.
bool is_emulated(const std::string& level);
// The seed of the order in which the emulator runs threads.
void set_order(uint64_t seed);
// Memory of the emulator that no kernel may touch.
void forbid(const void* memory, size_t bytes);

}  // namespace redrafter::testing
