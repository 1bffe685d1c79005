// The backends that tests run ops and models on, by the name of their level: those of the CPU ("oracle",
// "avx2"), "cuda" on a device, and the CUDA column on the emulator of native/testing/simt:
//   cuda:host               what streams are given is done at once
//   cuda:late               it is done as late as CUDA may do it (make_late in simt/control.h)
//   cuda:hasty-<n>          late, and the n-th wait for a stream does not wait
//   cuda:planted-<fault>    with a wrong kernel (planted_ops.h)
//   cuda:failing-<op>-<n>   late, and the n-th call of an op or function of the table fails: norm, head_top,
//                           kv_export, launch_graph, capture (the first norm of that one), allocate,
//                           allocate_host, open_stream
//   cpu:failing-<op>-<n>    the CPU, whose n-th allocate or allocate_host fails
// n is counted from when the backend was asked for.
#pragma once

#include <cstdint>
#include <string>

#include "ops/ops.h"

namespace redrafter::testing {

// Throws ERR_BACKEND with the reason when the level cannot run here. Ops that a table lacks throw when
// called.
const Backend& level_backend(const std::string& level);

// Whether the level runs on the emulator, and whether find_backend does not know it by itself.
bool is_emulated(const std::string& level);
bool is_only_for_tests(const std::string& device);
// Allocations of cpu:failing-... that were not given back.
int64_t failing_cpu_memory();
// The seed of the order in which the emulator runs threads.
void set_order(uint64_t seed);
// Memory of the emulator that no kernel may touch.
void forbid(const void* memory, size_t bytes);

}  // namespace redrafter::testing
