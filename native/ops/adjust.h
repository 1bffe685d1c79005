// Logits changed before a token is chosen from them: penalties on what the text holds already, biases, bans.
// A row sees its own history: what its lane holds, and the drafted tokens from below the root of its tree
// down to its own. adjust_undo puts back the bits that adjust has replaced.
#pragma once
#include <limits>

#include "base/tensor.h"

namespace redrafter {

// What a lane knows of an id.
struct AdjustEntry {
  int32_t id;
  int32_t generated;  // times it was generated
  float bias;
  uint32_t flags;
};
constexpr uint32_t kAdjustSeen = 1;    // the lane holds it: in its prompt, or generated
constexpr uint32_t kAdjustBanned = 2;  // must not be chosen
constexpr uint32_t kAdjustEnding = 4;  // must not be chosen in rows of a depth below ending_depth

// Tokens below the root that a row can have in its history.
constexpr int64_t kAdjustDepths = 16;

struct AdjustLane {
  float repetition = 1.0f;  // 1, 0, 0: no penalties
  float presence = 0.0f;
  float frequency = 0.0f;
  int32_t ending_depth = 0;  // the root has depth 0
  int64_t entries = 0, first_entry = 0;
  int64_t saved = -1;  // where this lane's replaced logits begin in AdjustParams::saved; -1: not kept
};

struct AdjustParams {
  float* logits;               // [rows, vocab] in and out
  const AdjustLane* lane;      // [lanes]
  const AdjustEntry* entries;  // [*] a lane's by rising id, each id once
  // The rows of a lane and the tree they are: as tree_accept has them; depths are at most kAdjustDepths. Rows
  // from begin[lanes] on are no lane's, and stay as they are.
  const int32_t* node_token;   // [rows]
  const int32_t* node_parent;  // [rows]
  const int32_t* begin;        // [lanes + 1]
  float* saved;                // [*] of a lane: [its rows, adjust_saved(its entries)]
  int64_t lanes, rows, vocab;
};

constexpr int64_t adjust_saved(int64_t entries) { return entries + kAdjustDepths; }

constexpr bool adjust_penalizes(const AdjustLane& lane) {
  return lane.repetition != 1.0f || lane.presence != 0.0f || lane.frequency != 0.0f;
}

// In this order, each operation in fp32 and rounded once, so that every backend gives the same bits: the
// repetition penalty where the id is in the history, frequency and presence of what was generated, bias,
// bans. `generated` and `seen` include the row's tokens below the root. A banned logit becomes NaN, which is
// never chosen, whatever the others are; NaN stays NaN.
constexpr float adjust_logit(float x, const AdjustLane& lane, int32_t generated, bool seen, float bias,
                             bool banned) {
  if (banned) return std::numeric_limits<float>::quiet_NaN();
  if (seen) x = x > 0.0f ? x / lane.repetition : x * lane.repetition;
  x = x - lane.frequency * static_cast<float>(generated);
  if (generated > 0) x = x - lane.presence;
  return x + bias;
}

void adjust_cpu(const AdjustParams&, Stream&);
void adjust_cuda(const AdjustParams&, Stream&);

void adjust_undo_cpu(const AdjustParams&, Stream&);
void adjust_undo_cuda(const AdjustParams&, Stream&);

}  // namespace redrafter
