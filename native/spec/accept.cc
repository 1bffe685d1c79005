#include "spec/accept.h"

#include <algorithm>

namespace redrafter {
namespace {

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

Cut cut_run(const std::vector<int32_t>& run, int64_t remaining, const StopRules& rules) {
  const int64_t count = static_cast<int64_t>(run.size());
  for (int64_t i = 0; i < count; ++i) {
    const int32_t id = run[static_cast<size_t>(i)];
    if (contains(rules.eos, id)) return {i + 1, Finish::kEos};
    if (contains(rules.stop, id)) return {i + 1, Finish::kStop};
    if (i + 1 == remaining) return {i + 1, Finish::kLength};
  }
  return {count, Finish::kNone};
}

}  // namespace redrafter
