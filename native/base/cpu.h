// What the processor can do, asked of the processor itself, so that it is the same whatever compiled this.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace redrafter {

// Instruction sets that matter to the CPU backend, by name, e.g. {"avx2", "fma", "avx512f"} or {"neon"}:
// those the processor has and whose registers the operating system saves.
std::vector<std::string> cpu_features();

// Whether cpu_features() names all of these.
bool cpu_has(std::initializer_list<std::string_view> features);

}  // namespace redrafter
