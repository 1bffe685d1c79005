#include "base/cpu.h"

#include <algorithm>
#include <array>
#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#define REDRAFTER_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace redrafter {

#if defined(REDRAFTER_X86)
namespace {

enum Register : uint8_t { kEax, kEbx, kEcx, kEdx };
using Registers = std::array<uint32_t, 4>;

// All zero for a leaf that the processor does not have.
Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r{};
#if defined(_MSC_VER)
  int words[4];
  __cpuid(words, 0);
  if (static_cast<uint32_t>(words[0]) < leaf) return r;
  __cpuidex(words, static_cast<int>(leaf), static_cast<int>(subleaf));
  for (size_t i = 0; i < r.size(); ++i) r[i] = static_cast<uint32_t>(words[i]);
#else
  __get_cpuid_count(leaf, subleaf, &r[kEax], &r[kEbx], &r[kEcx], &r[kEdx]);
#endif
  return r;
}

// Which registers the operating system saves when it switches threads (XCR0).
uint64_t saved_registers() {
  constexpr uint32_t kOsxsave = 1u << 27;
  if ((cpuid(1, 0)[kEcx] & kOsxsave) == 0) return 0;
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
#endif
}

constexpr uint64_t kXmm = 0x2, kYmm = kXmm | 0x4, kZmm = kYmm | 0xe0;

struct Feature {
  const char* name;
  uint32_t leaf, subleaf;
  Register word;
  int bit;
  uint64_t state;  // registers it needs; 0: none that need asking for
};

constexpr Feature kFeatures[] = {
    {"sse4.2", 1, 0, kEcx, 20, 0},       {"avx", 1, 0, kEcx, 28, kYmm},
    {"f16c", 1, 0, kEcx, 29, kYmm},      {"fma", 1, 0, kEcx, 12, kYmm},
    {"avx2", 7, 0, kEbx, 5, kYmm},       {"avx512f", 7, 0, kEbx, 16, kZmm},
    {"avx512bw", 7, 0, kEbx, 30, kZmm},  {"avx512vl", 7, 0, kEbx, 31, kZmm},
    {"avx512dq", 7, 0, kEbx, 17, kZmm},  {"avx512vnni", 7, 0, kEcx, 11, kZmm},
    {"avx512bf16", 7, 1, kEax, 5, kZmm},
};

}  // namespace
#endif

std::vector<std::string> cpu_features() {
  std::vector<std::string> found;
#if defined(REDRAFTER_X86)
  const uint64_t saved = saved_registers();
  for (const Feature& f : kFeatures) {
    const bool present = (cpuid(f.leaf, f.subleaf)[f.word] >> f.bit & 1u) != 0;
    if (present && (saved & f.state) == f.state) found.push_back(f.name);
  }
#elif defined(__aarch64__) || defined(_M_ARM64)
  found.push_back("neon");  // part of the architecture
#endif
  return found;
}

bool cpu_has(std::initializer_list<std::string_view> features) {
  const std::vector<std::string> found = cpu_features();
  return std::all_of(features.begin(), features.end(), [&found](std::string_view feature) {
    return std::find(found.begin(), found.end(), feature) != found.end();
  });
}

}  // namespace redrafter
