// One step of beam search: of rows x width extensions keep the width best by total log-probability, for each
// lane by itself. Scores are fp32 sums of log-probabilities, kept for every token of a beam: that of its
// prefix up to there. The root contributes 0. There is no length penalty and no end of sequence: beams have
// equal length.
#pragma once
#include "base/tensor.h"

namespace redrafter {

// The beams before the first step: one of each lane, its root.
struct BeamStartParams {
  const int32_t* root;  // [lanes]
  int64_t lanes, columns, hidden;
  float* scores;   // [lanes, columns] out: column 0 alone, 0
  int32_t* beams;  // [lanes, columns] out: column 0 alone
  float* state;    // [lanes, hidden] out: 0
};

void beam_start_cpu(const BeamStartParams&, Stream&);
void beam_start_cuda(const BeamStartParams&, Stream&);

struct BeamParams {
  const int32_t* token;      // [lanes, rows, width] head rows from head_top; -1 where there is none
  const float* logit;        // [lanes, rows, width]
  const float* log_sum_exp;  // [lanes, rows]
  const int32_t* id_map;     // [draft_vocab] target id of a head row, or null: the same
  const float* scores;       // [lanes, rows, columns]; columns 0 .. step-1 are filled, the last of them ranks
                             // the row: NaN for a dead one, of which nothing is kept
  const int32_t* beams;      // [lanes, rows, columns]; columns 0 .. step-1 are filled
  const float* state;        // [lanes, rows, hidden], already updated by this step's cell
  int64_t rows, width, columns, step, hidden;
  float* next_scores;  // [lanes, width, columns] out, columns 0 .. step; descending in the last of them, ties
                       // by lower row, then more probable token
  int32_t* next_beams;  // [lanes, width, columns] out; columns 0 .. step
  float* next_state;    // [lanes, width, hidden] out, rows of `state` gathered by parent
  int32_t* live;   // [lanes] out: beams kept; fewer than width when extensions run out or are NaN. The rows
                   // behind them are dead: scores of NaN, token 0, state 0.
  float* scratch;  // [lanes, (rows + 2) * width]
  int64_t lanes = 1;
};

// Outputs never overlap inputs. CUDA gives the same bits as the CPU and has no use for scratch.
void beam_cpu(const BeamParams&, Stream&);
void beam_cuda(const BeamParams&, Stream&);

}  // namespace redrafter
