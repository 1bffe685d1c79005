// Gated activation of the feed-forward layer: y = SiLU(gate) * up, SiLU(a) = a / (1 + exp(-a)).
#pragma once
#include "base/tensor.h"

namespace redrafter {

struct ActParams {
  const float* gate_up;  // [rows, 2 * dim]: gate, then up
  float* y;              // [rows, dim]
  int64_t rows, dim;
};

void act_cpu(const ActParams&, Stream&);  // oracle
void act_cuda(const ActParams&, Stream&);
namespace isa_base {
void act(const ActParams&, Stream&);
}
namespace isa_neon {
void act(const ActParams&, Stream&);
}
namespace isa_avx2 {
void act(const ActParams&, Stream&);
}
namespace isa_avx512 {
void act(const ActParams&, Stream&);
}

}  // namespace redrafter
