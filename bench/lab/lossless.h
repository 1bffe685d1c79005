// One engine, the same requests in many ways; lossless.cc.
#pragma once

#include "client.h"
#include "options.h"

namespace redrafter::lab {

// 0: nothing differs and drafts were accepted where they should be, 1: else. Prints what it finds.
int check_lossless(const Options& options);
// The same beside the oracle of the CPU; parity.cc.
int check_parity(const Options& options);

// A target, the drafters to try with it, and prompts for it.
struct Subject {
  std::string name, target;
  struct Drafter {
    std::string name, directory;
    bool knows;  // so much that some of its tokens must be accepted
  };
  std::vector<Drafter> drafters;
  std::vector<std::vector<int32_t>> prompts;
};
// Calls `use` with what the options name: a shape, a directory, or the bundled model. For a shape, its random
// weights are there as long as that runs.
int with_subject(const Options& options, const std::function<int(const Subject&)>& use);

}  // namespace redrafter::lab
