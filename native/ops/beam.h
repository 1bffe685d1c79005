// One step of beam search: of rows x width extensions keep the width best by total log-probability.
// Scores are fp32 sums of log-probabilities; the root contributes 0. There is no length penalty and no end of
// sequence: beams have equal length.
#pragma once
#include "base/tensor.h"

namespace redrafter {

struct BeamParams {
  const int32_t* token;      // [rows, width] head rows from head_top; -1 where there is none
  const float* logit;        // [rows, width]
  const float* log_sum_exp;  // [rows]
  const int32_t* id_map;     // [draft_vocab] target id of a head row, or null: the same
  const float* score;        // [rows]
  const int32_t* beams;      // [rows, columns]; columns 0 .. step-1 are filled
  const float* state;        // [rows, hidden], already updated by this step's cell
  int64_t rows, width, columns, step, hidden;
  float* next_score;    // [width] out, descending; ties by lower row, then more probable token
  int32_t* next_beams;  // [width, columns] out; columns 0 .. step
  float* next_state;    // [width, hidden] out, rows of `state` gathered by parent
  int32_t* live;        // [1] out: beams kept; fewer than width when extensions run out or are NaN
  float* scratch;       // [rows * width + 2 * width]; CUDA has no use for it
};

// Outputs never overlap inputs. Of next_beams and next_state only the first `live` rows are written; the rest
// of next_score is -infinity. CUDA gives the same bits as the CPU.

void beam_cpu(const BeamParams&, Stream&);
void beam_cuda(const BeamParams&, Stream&);

}  // namespace redrafter
