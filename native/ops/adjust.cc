#include "ops/adjust.h"

#include <algorithm>

#include "base/threads.h"

namespace redrafter {
namespace {

// Calls body(id, generated, seen, bias, banned, place) for each id that the lane changes in the row; `place`
// is where its logit is kept, counted from the start of what the row keeps.
template <typename Body>
void visit(const AdjustParams& p, int64_t lane, int64_t node, const Body& body) {
  const AdjustLane& own = p.lane[lane];
  const int64_t first = p.begin[lane];
  int32_t path[kAdjustDepths];  // from the row's token up
  int32_t depth = 0;
  for (int64_t at = node; p.node_parent[first + at] >= 0 && depth < kAdjustDepths;
       at = p.node_parent[first + at]) {
    path[depth++] = p.node_token[first + at];
  }
  const auto times = [&](int32_t id) { return static_cast<int32_t>(std::count(path, path + depth, id)); };

  const AdjustEntry* entries = p.entries + own.first_entry;
  for (int64_t i = 0; i < own.entries; ++i) {
    const AdjustEntry& e = entries[i];
    const int32_t drafted = times(e.id);
    const bool banned =
        (e.flags & kAdjustBanned) != 0 || ((e.flags & kAdjustEnding) != 0 && depth < own.ending_depth);
    body(e.id, e.generated + drafted, drafted > 0 || (e.flags & kAdjustSeen) != 0, e.bias, banned, i);
  }
  for (int32_t j = 0; j < depth && adjust_penalizes(own); ++j) {
    const bool before = std::find(path, path + j, path[j]) != path + j;
    const AdjustEntry* known = std::lower_bound(entries, entries + own.entries, path[j],
                                                [](const AdjustEntry& e, int32_t id) { return e.id < id; });
    if (before || (known != entries + own.entries && known->id == path[j])) continue;
    body(path[j], times(path[j]), true, 0.0f, false, own.entries + j);
  }
}

// Calls body(lane, node, row) for every row.
template <typename Body>
void for_rows(const AdjustParams& p, Stream& stream, const Body& body) {
  int64_t work = 0;
  for (int64_t lane = 0; lane < p.lanes; ++lane) {
    work += (p.begin[lane + 1] - p.begin[lane]) * 8 * adjust_saved(p.lane[lane].entries);
  }
  stream.threads->run(std::min<int64_t>(p.rows, p.begin[p.lanes]), work, [&p, &body](int64_t row, int) {
    const int64_t lane = std::upper_bound(p.begin, p.begin + p.lanes, row) - p.begin - 1;
    body(lane, row - p.begin[lane], row);
  });
}

}  // namespace

void adjust_cpu(const AdjustParams& p, Stream& stream) {
  for_rows(p, stream, [&p](int64_t lane, int64_t node, int64_t row) {
    const AdjustLane& own = p.lane[lane];
    float* kept = own.saved < 0 ? nullptr : p.saved + own.saved + node * adjust_saved(own.entries);
    visit(p, lane, node,
          [&](int32_t id, int32_t generated, bool seen, float bias, bool banned, int64_t place) {
            float& logit = p.logits[row * p.vocab + id];
            if (kept != nullptr) kept[place] = logit;
            logit = adjust_logit(logit, own, generated, seen, bias, banned);
          });
  });
}

void adjust_undo_cpu(const AdjustParams& p, Stream& stream) {
  for_rows(p, stream, [&p](int64_t lane, int64_t node, int64_t row) {
    const AdjustLane& own = p.lane[lane];
    if (own.saved < 0) return;
    const float* kept = p.saved + own.saved + node * adjust_saved(own.entries);
    visit(p, lane, node, [&](int32_t id, int32_t, bool, float, bool, int64_t place) {
      p.logits[row * p.vocab + id] = kept[place];
    });
  });
}

}  // namespace redrafter
