#include "ops/beam.h"

#include <cstring>
#include <limits>

#include "ops/top.h"

namespace redrafter {

void beam_cpu(const BeamParams& p, Stream&) {
  float* total = p.scratch;
  int32_t* chosen = reinterpret_cast<int32_t*>(total + p.rows * p.width);
  for (int64_t i = 0; i < p.rows * p.width; ++i) {
    const int64_t row = i / p.width;
    total[i] = p.token[i] < 0 ? std::numeric_limits<float>::quiet_NaN()
                              : p.score[row] + (p.logit[i] - p.log_sum_exp[row]);
  }
  select_top(total, p.rows * p.width, p.width, chosen, p.next_score);
  int32_t live = 0;
  for (; live < p.width && chosen[live] >= 0; ++live) {
    const int64_t row = chosen[live] / p.width;
    int32_t* beam = p.next_beams + live * p.columns;
    std::memcpy(beam, p.beams + row * p.columns, static_cast<size_t>(p.step) * sizeof(int32_t));
    const int32_t token = p.token[chosen[live]];
    beam[p.step] = p.id_map == nullptr ? token : p.id_map[token];
    std::memcpy(p.next_state + live * p.hidden, p.state + row * p.hidden,
                static_cast<size_t>(p.hidden) * sizeof(float));
  }
  *p.live = live;
}

}  // namespace redrafter
