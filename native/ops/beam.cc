#include "ops/beam.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "ops/top.h"

namespace redrafter {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

void extend(const BeamParams& p, int64_t lane) {
  const int64_t rows = lane * p.rows, next = lane * p.width, count = p.rows * p.width;
  const int32_t* token = p.token + lane * count;
  float* total = p.scratch + lane * (count + 2 * p.width);
  float* best = total + count;
  int32_t* chosen = reinterpret_cast<int32_t*>(best + p.width);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = rows + i / p.width;
    const float score = p.scores[row * p.columns + p.step - 1];
    total[i] = token[i] < 0 ? kNaN : score + (p.logit[lane * count + i] - p.log_sum_exp[row]);
  }
  select_top(total, count, p.width, chosen, best);
  int32_t live = 0;
  while (live < p.width && chosen[live] >= 0) ++live;
  p.live[lane] = live;
  for (int64_t i = 0; i < p.width; ++i) {
    int32_t* beam = p.next_beams + (next + i) * p.columns;
    float* scores = p.next_scores + (next + i) * p.columns;
    float* state = p.next_state + (next + i) * p.hidden;
    if (i >= live) {
      std::fill(scores, scores + p.step + 1, kNaN);
      std::fill(beam, beam + p.step + 1, 0);
      std::fill(state, state + p.hidden, 0.0f);
      continue;
    }
    const int64_t row = rows + chosen[i] / p.width;
    std::memcpy(scores, p.scores + row * p.columns, static_cast<size_t>(p.step) * sizeof(float));
    scores[p.step] = best[i];
    std::memcpy(beam, p.beams + row * p.columns, static_cast<size_t>(p.step) * sizeof(int32_t));
    beam[p.step] = p.id_map == nullptr ? token[chosen[i]] : p.id_map[token[chosen[i]]];
    std::memcpy(state, p.state + row * p.hidden, static_cast<size_t>(p.hidden) * sizeof(float));
  }
}

}  // namespace

void beam_start_cpu(const BeamStartParams& p, Stream&) {
  std::fill(p.state, p.state + p.lanes * p.hidden, 0.0f);
  for (int64_t lane = 0; lane < p.lanes; ++lane) {
    p.scores[lane * p.columns] = 0.0f;
    p.beams[lane * p.columns] = p.root[lane];
  }
}

void beam_cpu(const BeamParams& p, Stream&) {
  for (int64_t lane = 0; lane < p.lanes; ++lane) extend(p, lane);
}

}  // namespace redrafter
