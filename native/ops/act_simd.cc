#include "base/threads.h"
#include "ops/act.h"
#include "ops/math_simd.h"
#include "ops/panel_simd.h"

namespace redrafter::REDRAFTER_ISA {

void act(const ActParams& p, Stream& stream) {
  constexpr int64_t kChunk = 512;
  const int64_t chunks = (p.dim + kChunk - 1) / kChunk;
  stream.threads->run(p.rows * chunks, 4 * p.rows * p.dim, [&p, chunks](int64_t task, int) {
    const int64_t row = task / chunks, begin = task % chunks * kChunk;
    const int64_t end = begin + kChunk < p.dim ? begin + kChunk : p.dim;
    const float* gate = p.gate_up + row * 2 * p.dim;
    const float* up = gate + p.dim;
    float* y = p.y + row * p.dim;
    for (int64_t i = begin; i < end; i += kLanes) {
      const F16 a = f16_load_n(gate + i, end - i);
      f16_store_n(y + i, f16_mul(f16_silu(a), f16_load_n(up + i, end - i)), end - i);
    }
  });
}

}  // namespace redrafter::REDRAFTER_ISA
