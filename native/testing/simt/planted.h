// Small kernels for the tests of the emulator: ones that are right, and ones with a planted fault.
#pragma once

#include <cstdint>
#include <string>

#include "base/tensor.h"

namespace redrafter::testing {

// Words of device memory, with their counts; counters are zero at the start.
struct Planted {
  const uint32_t* in;
  int64_t in_count;
  uint32_t* out;
  int64_t out_count;
  uint32_t* counters;
  unsigned blocks, threads;
};

// False when there is no kernel of this name.
bool run_planted(const std::string& name, const Planted& p, Stream& stream);  // planted.cu
bool run_fault(const std::string& name, const Planted& p, Stream& stream);    // faults.cu

}  // namespace redrafter::testing
