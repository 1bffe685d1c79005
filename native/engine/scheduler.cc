#include "engine/scheduler.h"

#include <algorithm>

namespace redrafter {
namespace {

constexpr int64_t kLeastShare = 16;  // rows of a prompt's equal share, unless there are fewer
constexpr int64_t kReservedPart =
    4;  // of a pass, for prompts that got nothing in the last round: one in so many

// The requests that decode, or those that do not, by how long they have had no rows, then in turn.
std::vector<size_t> by_wait(const std::vector<ActiveRequest>& active, bool decodes) {
  std::vector<size_t> order;
  for (size_t i = 0; i < active.size(); ++i) {
    if (active[i].decodes == decodes) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return active[a].idle_rounds > active[b].idle_rounds; });
  return order;
}

// Rows that decoding must leave: none, unless it left none the last time.
int64_t reserved_rows(const std::vector<ActiveRequest>& active, const RoundLimits& limits) {
  int64_t wanted = 0;
  for (const ActiveRequest& request : active) {
    if (request.decodes) continue;
    if (request.idle_rounds == 0) return 0;
    wanted += request.rows;
  }
  return std::min({wanted, limits.prompt_chunk, std::max<int64_t>(1, limits.rows / kReservedPart)});
}

void share_rows(const std::vector<ActiveRequest>& active, int64_t chunk, int64_t budget,
                std::vector<int64_t>& rows) {
  const std::vector<size_t> prompts = by_wait(active, false);
  if (prompts.empty()) return;
  const auto give = [&](size_t i, int64_t most) {
    const int64_t given = std::min({most, active[i].rows - rows[i], chunk - rows[i]});
    rows[i] += given;
    budget -= given;
    return given;
  };
  int64_t equally = (budget + 1) / 2;
  const int64_t share = std::max(equally / static_cast<int64_t>(prompts.size()), kLeastShare);
  for (const size_t i : prompts) equally -= give(i, std::min(share, equally));
  for (size_t i = 0; i < active.size(); ++i) {
    if (!active[i].decodes) give(i, budget);
  }
}

}  // namespace

int64_t next_admission(const std::vector<WaitingRequest>& waiting, int64_t free_blocks, int64_t free_hidden) {
  for (size_t i = 0; i < waiting.size(); ++i) {
    const WaitingRequest& request = waiting[i];
    if (request.blocks <= free_blocks && (!request.generates || free_hidden > 0)) {
      return static_cast<int64_t>(i);
    }
    if (request.overtaken >= kMaxOvertakes) return -1;
  }
  return -1;
}

std::vector<int64_t> plan_rows(const std::vector<ActiveRequest>& active, const RoundLimits& limits) {
  std::vector<int64_t> rows(active.size(), 0);
  const int64_t for_trees = limits.rows - reserved_rows(active, limits);
  const std::vector<size_t> decoding = by_wait(active, true);
  int64_t used = 0;
  for (const size_t i : decoding) {
    if (used + active[i].rows > for_trees) continue;
    rows[i] = active[i].rows;
    used += rows[i];
  }
  const int64_t left = limits.rows - used;
  share_rows(active, limits.prompt_chunk, decoding.empty() ? left : std::min(left, limits.prompt_chunk),
             rows);
  return rows;
}

}  // namespace redrafter
