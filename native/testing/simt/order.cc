#include "testing/simt/order.h"

#include <algorithm>
#include <memory>
#include <unordered_map>

#include "testing/simt/machine.h"

namespace redrafter::simt {
namespace {

// What a block had released with an atomic operation: accesses of thread i before visible[i].
struct Release {
  size_t block;
  std::shared_ptr<const std::vector<uint64_t>> visible;
};
struct Acquired {
  std::shared_ptr<const std::vector<uint64_t>> visible;
  int thread;
  uint64_t time;  // of the fence
};
struct Pending {
  int thread;
  Release release;
};

std::vector<uint64_t> block_starts;
std::unordered_map<const void*, std::vector<Release>> releases;
// Of the block that runs:
std::vector<Pending> pending;
std::unordered_map<size_t, std::vector<Acquired>> acquired;  // by block
std::shared_ptr<const std::vector<uint64_t>> visible;        // the last one made, while it is still right
uint64_t visible_since = 0;
int visible_to = -1;
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
  visible.reset();
  fenced = false;
}

size_t block_at(uint64_t time) {
  const auto after = std::upper_bound(block_starts.begin(), block_starts.end(), time);
  return static_cast<size_t>(after - block_starts.begin()) - 1;
}

void acquire(Thread& thread, const void* address) {
  const auto found = releases.find(address);
  if (found == releases.end()) return;
  for (const Release& release : found->second) {
    if (release.block + 1 != block_starts.size()) pending.push_back({thread.number, release});
  }
}

void release(const Thread& thread, const void* address) {
  if (!fenced) return;
  if (visible == nullptr || visible_since != machine.order_changed || visible_to != thread.number) {
    std::vector<uint64_t> times(static_cast<size_t>(machine.thread_count));
    for (size_t i = 0; i < times.size(); ++i) times[i] = visible_before(machine.threads[i], thread);
    visible = std::make_shared<const std::vector<uint64_t>>(std::move(times));
    visible_since = machine.order_changed;
    visible_to = thread.number;
  }
  std::vector<Release>& all = releases[address];
  const size_t block = block_starts.size() - 1;
  if (!all.empty() && all.back().block == block && all.back().visible == visible) return;
  all.push_back({block, visible});
}

void finish_acquire(Thread& thread) {
  fenced = true;
  std::erase_if(pending, [&](Pending& p) {
    if (p.thread != thread.number) return false;
    acquired[p.release.block].push_back({std::move(p.release.visible), thread.number, thread.fence});
    return true;
  });
}

bool ordered_after_some_block() { return !acquired.empty(); }

bool ordered_before(uint64_t time, int by, const Thread& thread) {
  const auto found = acquired.find(block_at(time));
  if (found == acquired.end()) return false;
  return std::any_of(found->second.begin(), found->second.end(), [&](const Acquired& a) {
    if ((*a.visible)[static_cast<size_t>(by)] <= time) return false;
    const Thread& who = machine.threads[static_cast<size_t>(a.thread)];
    return a.thread == thread.number || a.time < machine.barrier_time ||
           (who.warp == thread.warp && a.time < thread.warp->synced);
  });
}

}  // namespace redrafter::simt
