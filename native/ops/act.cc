#include "ops/act.h"

#include <cmath>

#include "base/threads.h"

namespace redrafter {

void act_cpu(const ActParams& p, Stream& stream) {
  stream.threads->run(p.rows, 8 * p.rows * p.dim, [&p](int64_t row, int) {
    const float* gate = p.gate_up + row * 2 * p.dim;
    const float* up = gate + p.dim;
    for (int64_t i = 0; i < p.dim; ++i) p.y[row * p.dim + i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
  });
}

}  // namespace redrafter
