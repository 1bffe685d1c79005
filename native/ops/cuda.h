// The CUDA column of the op table (cuda.cu), as the companion library and the tests' emulator have it:
// nothing in it throws. Failures are left in the stream, allocate returns null.
#pragma once

#include "ops/ops.h"

namespace redrafter {

Backend cuda_table();

}  // namespace redrafter
