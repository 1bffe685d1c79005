#include "testing/simt/order.h"

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "testing/simt/machine.h"

namespace redrafter::simt {
namespace {

// What a block has released with atomic operations on one address: accesses of thread i before visible[i].
struct Release {
  size_t block;
  std::vector<uint64_t> visible;
  uint64_t since = 0;  // when it was brought up to date, for an operation of thread `to`
  int to = -1;
};
using Releases = std::vector<Release>;  // in the order of the blocks

// A thread has seen all releases of earlier blocks to an address: from `time` on, that of its next fence, it
// may rely on them.
struct Acquired {
  const Releases* releases;
  int thread;
  uint64_t time;
};

std::vector<uint64_t> block_starts;
std::unordered_map<const void*, Releases> releases;
// Of the block that runs:
std::vector<Acquired> pending, acquired;
bool fenced = false;

// The time before which accesses of `by` are visible to who sees the atomic operation `thread` does now.
uint64_t visible_before(const Thread& by, const Thread& thread) {
  const bool same_warp = by.warp == thread.warp;
  // A fence of the thread itself covers what was ordered before that fence.
  uint64_t time = thread.fence_after_barrier;
  if (same_warp) time = std::max(time, thread.fence_after_warp);
  if (&by == &thread) time = std::max(time, thread.fence);
  // A fence of the writer counts when it is ordered before the atomic operation.
  const bool before = by.fence < machine.barrier_time || (same_warp && by.fence < thread.warp->synced);
  if (before) time = std::max(time, by.fence);
  return time;
}

}  // namespace

void begin_launch_order() {
  block_starts.clear();
  releases.clear();
}

void begin_block_order(uint64_t start) {
  block_starts.push_back(start);
  pending.clear();
  acquired.clear();
  fenced = false;
}

size_t block_at(uint64_t time) {
  const auto after = std::upper_bound(block_starts.begin(), block_starts.end(), time);
  return static_cast<size_t>(after - block_starts.begin()) - 1;
}

void acquire(const Thread& thread, const void* address) {
  const auto found = releases.find(address);
  if (found == releases.end() || found->second.front().block + 1 == block_starts.size()) return;
  const bool known = std::any_of(pending.begin(), pending.end(), [&](const Acquired& a) {
    return a.thread == thread.number && a.releases == &found->second;
  });
  if (!known) pending.push_back({&found->second, thread.number, 0});
}

void release(const Thread& thread, const void* address) {
  if (!fenced) return;
  Releases& all = releases[address];
  const size_t block = block_starts.size() - 1;
  if (all.empty() || all.back().block != block)
    all.push_back({block, std::vector<uint64_t>(static_cast<size_t>(machine.thread_count))});
  Release& release = all.back();
  if (release.since == machine.order_changed && release.to == thread.number) return;
  release.since = machine.order_changed, release.to = thread.number;
  for (size_t i = 0; i < release.visible.size(); ++i)
    release.visible[i] = std::max(release.visible[i], visible_before(machine.threads[i], thread));
}

void finish_acquire(const Thread& thread) {
  fenced = true;
  std::erase_if(pending, [&](const Acquired& a) {
    if (a.thread != thread.number) return false;
    acquired.push_back({a.releases, a.thread, thread.fence});
    return true;
  });
}

bool ordered_after_some_block() { return !acquired.empty(); }

bool ordered_before(uint64_t time, int by, const Thread& thread) {
  const size_t block = block_at(time);
  return std::any_of(acquired.begin(), acquired.end(), [&](const Acquired& a) {
    const Thread& who = machine.threads[static_cast<size_t>(a.thread)];
    if (a.thread != thread.number && a.time >= machine.barrier_time &&
        (who.warp != thread.warp || a.time >= thread.warp->synced))
      return false;
    const auto found = std::lower_bound(a.releases->begin(), a.releases->end(), block,
                                        [](const Release& release, size_t b) { return release.block < b; });
    return found != a.releases->end() && found->block == block &&
           found->visible[static_cast<size_t>(by)] > time;
  });
}

}  // namespace redrafter::simt
