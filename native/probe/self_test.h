// Whether a device computes as it must: ops with known answers, small enough to take no time.
#pragma once

#include "base/reason.h"
#include "ops/ops.h"

namespace redrafter {

// Runs packing, matrix products of few and of many rows, norms, attention over a draft tree and its
// compaction, the draft head and sampling, with masks and without, on `device`, single and as a graph, and
// compares with the plain loops of the CPU: values within bounds that follow from the order of operations,
// ids and copies exactly, and the bits of a row however many rows share a launch. Never throws:
// SELF_TEST_FAILED with the first fault, TOO_LITTLE_MEMORY.
Reason self_test(const Backend& device);

}  // namespace redrafter
