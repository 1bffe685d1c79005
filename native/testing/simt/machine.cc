#include "testing/simt/machine.h"

#include <cstdio>
#include <map>

#include "testing/simt/check.h"

namespace redrafter::simt {

Machine machine;

std::string text(const uint3& index) {
  char digits[48];
  std::snprintf(digits, sizeof digits, "(%u, %u, %u)", index.x, index.y, index.z);
  return digits;
}

std::string hex(const void* address) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%p", address);
  return digits;
}

void fail(std::string what) {
  Machine& m = machine;
  m.problem = std::string(m.kernel) + ", block " + text(m.block_index) + ", thread " +
              text(m.current->index) + ": " + what;
  std::string().swap(what);  // nothing here is destroyed
  switch_fiber(m.current->fiber, m.outside, true);
  __builtin_unreachable();
}

namespace {

// Who waits where, when no thread can go on.
std::string deadlock() {
  Machine& m = machine;
  std::map<std::string, std::pair<int, uint3>> places;  // how many, and the first of them
  for (int i = 0; i < m.thread_count; ++i) {
    const Thread& thread = m.threads[static_cast<size_t>(i)];
    auto& place = places[thread.finished ? "ended" : thread.waits_in];
    if (place.first++ == 0) place.second = thread.index;
  }
  std::string all;
  for (const auto& [place, who] : places) {
    all += (all.empty() ? "" : ", ") + std::to_string(who.first) +
           (place == "ended" ? " have " : " wait in ") + place + " (first: thread " + text(who.second) + ")";
  }
  return "divergence: of " + std::to_string(m.thread_count) + " threads " + all;
}

// Any thread may come next: mostly the one made ready last, whose warp is in the cache, now and then another.
Thread* take_ready() {
  std::vector<Thread*>& ready = machine.ready;
  if (ready.empty()) return nullptr;
  if ((machine.random.next() & 7) == 0)
    std::swap(ready[machine.random.below(static_cast<uint32_t>(ready.size()))], ready.back());
  Thread* thread = ready.back();
  ready.pop_back();
  return thread;
}

// All lanes of a warp, in an order of the many there are.
void make_ready(Warp& warp) {
  const uint32_t order = machine.random.next(), start = order >> 8, step = order | 1;
  for (uint32_t i = 0; i < kWarpLanes; ++i) {
    const uint32_t lane = (start + i * step) % kWarpLanes;
    if (lane >= static_cast<uint32_t>(warp.lanes)) continue;
    warp.threads[lane].waits_in = nullptr;
    machine.ready.push_back(&warp.threads[lane]);
  }
}

}  // namespace

void make_all_ready() {
  Machine& m = machine;
  uint32_t order[kMaxThreads / kWarpLanes];
  const uint32_t warps = static_cast<uint32_t>((m.thread_count + kWarpLanes - 1) / kWarpLanes);
  for (uint32_t i = 0; i < warps; ++i) order[i] = i;
  for (uint32_t left = warps; left > 0; --left) {
    std::swap(order[left - 1], order[m.random.below(left)]);
    make_ready(m.warps[order[left - 1]]);
  }
}

void run_next(bool ends) {
  Machine& m = machine;
  Thread* next = take_ready();
  if (next == nullptr) {
    if (!ends || m.finished < m.thread_count) fail(deadlock());
    switch_fiber(m.current->fiber, m.outside, true);
  }
  Thread* from = m.current;
  if (next == from) return;
  m.current = next;
  switch_fiber(from->fiber, next->fiber, ends);
}

void join_warp(const Collective& collective, unsigned mask, void* arguments) {
  Thread& thread = *machine.current;
  Warp& warp = *thread.warp;
  if (mask != 0xffffffffu) fail(std::string(collective.name) + " with a mask that is not full");
  if (warp.lanes != kWarpLanes)
    fail(std::string(collective.name) + " in a warp of " + std::to_string(warp.lanes) + " threads");
  if (!thread.copies.empty()) progress_copies(thread);
  if (warp.arrived == 0) warp.collective = &collective;
  if (warp.collective != &collective)
    fail(std::string("divergence: ") + collective.name + " while other lanes of the warp wait in " +
         warp.collective->name);
  warp.arguments[thread.lane()] = arguments;
  if (++warp.arrived < kWarpLanes) {
    thread.waits_in = collective.name;
  } else {
    warp.arrived = 0;
    collective.run(warp.arguments);
    if (collective.orders_memory) note_warp_barrier(warp);
    make_ready(warp);
  }
  run_next();
}

int join_block(const char* name, bool predicate) {
  Machine& m = machine;
  Thread& thread = *m.current;
  if (!thread.copies.empty()) progress_copies(thread);
  if (m.barrier.arrived == 0) m.barrier = {name, 0, 0};
  if (m.barrier.name != name)
    fail(std::string("divergence: ") + name + " while other threads wait in " + m.barrier.name);
  m.barrier.count += predicate ? 1 : 0;
  if (++m.barrier.arrived < m.thread_count) {
    thread.waits_in = name;
  } else {
    m.predicates = m.barrier.count;
    m.barrier.arrived = 0;
    note_barrier();
    make_all_ready();
  }
  run_next();
  return m.predicates;
}

}  // namespace redrafter::simt
