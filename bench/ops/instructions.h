// The functions of one instruction-set level that machine.cc measures with.
#pragma once

#include <cstdint>

namespace redrafter::bench {

struct Instructions {
  // Reads [data, data + bytes) once, as two streams with prefetch, the pattern of the matrix product.
  float (*read)(const char* data, int64_t bytes);
  // Does `count` fused multiply-adds of 16 lanes on registers, in enough chains to hide their latency.
  float (*multiply_add)(int64_t count);
  // Does `count` instructions, or what stands for one, of 64 products of bytes added to 16 lanes, as a
  // product with q8_0 or q4_0 does them: rows by panels whose sums are in registers, operands from the
  // first-level cache.
  float (*add_bytes)(int64_t count);
  float (*add_nibbles)(int64_t count);
};

}  // namespace redrafter::bench

namespace redrafter::isa_base {
extern const bench::Instructions kInstructions;
}
namespace redrafter::isa_avx2 {
extern const bench::Instructions kInstructions;
}
namespace redrafter::isa_avx512 {
extern const bench::Instructions kInstructions;
}
namespace redrafter::isa_avx512vnni {
extern const bench::Instructions kInstructions;
}
namespace redrafter::isa_neon {
extern const bench::Instructions kInstructions;
}
