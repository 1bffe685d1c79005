// What the machine can do at most, measured with the threads and, for multiply-adds, the instructions of a
// level.
#pragma once

#include <cstdint>

namespace redrafter::bench {

// Functions of one instruction-set level.
struct Limits {
  // Reads [data, data + bytes) once, as two streams with prefetch, the pattern of the matrix product.
  float (*read)(const char* data, int64_t bytes);
  // Does `count` fused multiply-adds of 16 lanes on registers, in enough chains to hide their latency.
  float (*multiply_add)(int64_t count);
};

}  // namespace redrafter::bench

#define REDRAFTER_LIMITS(isa)                         \
  namespace redrafter::isa {                          \
  float read_memory(const char* data, int64_t bytes); \
  float multiply_add(int64_t count);                  \
  }
REDRAFTER_LIMITS(isa_base)
REDRAFTER_LIMITS(isa_avx2)
REDRAFTER_LIMITS(isa_avx512)
REDRAFTER_LIMITS(isa_neon)
#undef REDRAFTER_LIMITS
