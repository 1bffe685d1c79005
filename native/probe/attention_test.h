// Part of self_test.h.
#pragma once

#include "probe/sides.h"

namespace redrafter {

// Attention of the nodes of a draft tree behind a context of more than one split, and of a node after its
// path was committed. Throws SELF_TEST_FAILED.
void test_attention(Side& device, Side& cpu, DType dtype);

}  // namespace redrafter
