// Ops that are wrong, for the tests that must notice: small kernels, each with one fault, and the same
// without one.
#pragma once

#include <string>

#include "ops/ops.h"

namespace redrafter::testing {

// Puts the op with this fault into the table:
//   matmul     "no-fault-matmul"     right
//              "fixed-split"         right: K in four parts, whatever M is
//              "split-by-rows"       K in four parts, but in one where there are more than 8 rows
//              "leak"                adds the other rows, times zero
//              "atomic-sum"          parts of K are added in the order in which threads come
//              "overrun"             writes one element behind y
//              "workspace-overrun"   writes one element behind the workspace
//              "counter-left"        leaves a counter that is not zero
//   attention  "no-fault-attention"  right
//              "no-sibling-mask"     a node sees all nodes of the tree before it
//              "no-nan-guard"        slots beyond the context are multiplied by a weight of zero
//   sample     "last-wins"           of equal logits the last one; all rows greedy
//              "sample-mask-ignored" there are no masks
//              "no-op"               there is none
//   head_top   "mask-ignored"        there are no masks
//              "mask-of-first"       all rows have the mask of the first one
//              "mask-by-head-row"    masks are read by head row, not by target id
//              "masked-in-sum"       what a mask leaves out counts in log_sum_exp
//   rope       "inert-written"       an inert row is written to the first slot of the first sequence
//   keep_hidden "padding-kept"       of a lane without rows something is kept, too
// False when there is no such fault.
bool plant(const std::string& fault, Backend& table);

}  // namespace redrafter::testing
