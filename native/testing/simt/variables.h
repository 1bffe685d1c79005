// The static shared variables of all kernels, as the symbol table of the module lists them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace redrafter::simt {

struct SharedVariable {
  uintptr_t begin, end;
  std::string name;
};

// In ascending order. Where the module has no symbols, the sections that hold the variables.
const std::vector<SharedVariable>& shared_variables();

// Where the module is loaded: addresses in its file count from here.
uintptr_t module_base();
// Whether the bytes lie in the module, be it code, constants or variables.
bool in_module(uintptr_t address, size_t bytes);

}  // namespace redrafter::simt
