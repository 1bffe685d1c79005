#include "testing/simt/check.h"

#include <algorithm>

#include "testing/simt/machine.h"
#include "testing/simt/order.h"
#include "testing/simt/region.h"
#include "testing/simt/variables.h"

namespace redrafter::simt {

bool checking = can_check();

namespace {

constexpr int kTimeShift = 16, kThreadShift = 4;
// Of the last write.
constexpr uint64_t kAtomicWrite = 1, kCopyUnderWay = 2;
// Of the last read, when it was not the only one since what orders it with the thread that runs.
constexpr uint64_t kSeveralLanes = 1, kSeveralWarps = 2, kSeveralBlocks = 4;

struct Closure {
  uintptr_t begin = 0, end = 0;
} closure;

Region* dynamic_region() {
  static Region region(reinterpret_cast<uintptr_t>(dynamic_shared()),
                       reinterpret_cast<uintptr_t>(dynamic_shared()) + kMaxSharedBytes, true,
                       "the dynamic shared memory");
  return &region;
}
// The static part: a region for each variable, in ascending order.
std::vector<Region>& static_regions() {
  static std::vector<Region> regions = [] {
    std::vector<Region> all;
    for (const SharedVariable& variable : shared_variables())
      all.emplace_back(variable.begin, variable.end, true, variable.name);
    return all;
  }();
  return regions;
}
Region *dynamic_part, *last_static, *last_global;  // of this launch; the others as found last

// One access under way.
struct Event {
  uintptr_t at;
  size_t bytes;
  Access access;
  const char* what;
  const void* code;
  Thread& thread;
};

std::string describe(const Event& e) {
  const bool reads = e.access == Access::kRead, atomic = e.access == Access::kAtomic;
  std::string all = e.what == nullptr ? "" : std::string(e.what) + ": ";
  all += (reads ? "reads " : atomic ? "changes " : "writes ") + std::to_string(e.bytes) + " bytes at ";
  return all + hex(reinterpret_cast<void*>(e.at));
}

// For addr2line and disassemblers.
std::string place(const Event& e) {
  if (e.code == nullptr) return "";
  const uintptr_t offset = reinterpret_cast<uintptr_t>(e.code) - module_base();
  return " (code at " + hex(reinterpret_cast<void*>(offset)) + " of the module)";
}

std::string position(const Event& e, const Region& region) {
  return ", byte " + std::to_string(e.at - region.begin) + " of " + region.text();
}

[[noreturn]] void fail_memory(const Event& e) {
  std::vector<const Region*> shared = {dynamic_part};
  for (const Region& region : static_regions()) shared.push_back(&region);
  const Region* near = nearest_region(e.at, shared);
  std::string where = ": not memory of the device";
  if (near != nullptr && near->contains(e.at)) {
    where = ", " + std::to_string(near->end - e.at) + " bytes before the end of " + near->text();
  } else if (near != nullptr && e.at >= near->end) {
    where = ", " + std::to_string(e.at - near->end) + " bytes after " + near->text();
  } else if (near != nullptr) {
    where = ", " + std::to_string(near->begin - e.at) + " bytes before " + near->text();
  }
  fail("out of bounds: " + describe(e) + where + place(e));
}

constexpr const char* kCopies = "is copying to: no wait has covered that";

[[noreturn]] void fail_race(const Event& e, const Region& region, uint64_t record, const std::string& did) {
  const uint64_t time = record >> kTimeShift;
  const bool this_block = time >= machine.block_start;
  std::string all = "race: " + describe(e) + position(e, region) + ", which thread " +
                    text(machine.threads[record >> kThreadShift & 0xfff].index);
  if (!this_block) all += " of block " + text(block_index_of(block_at(time)));
  all += " " + did;
  if (did != kCopies)
    all += this_block ? ", with nothing that orders them"
                      : ", and no fence and atomic operation order the blocks";
  all += place(e);
  fail(std::move(all));
}

// Whether the access stamped `record` comes before one of `thread` now, but for what its flags say.
bool ordered(uint64_t record, const Thread& thread, bool shared) {
  const uint64_t time = record >> kTimeShift;
  const Machine& m = machine;
  if (time < m.launch_start) return true;
  const int who = static_cast<int>(record >> kThreadShift & 0xfff);
  if (time < m.block_start) return shared || ordered_before(time, who, thread);
  if (time < m.barrier_time || who == thread.number) return true;
  return who / kWarpLanes == thread.number / kWarpLanes && time < thread.warp->synced;
}

void check_against_write(const Event& e, const Region& region, uint64_t write) {
  if (write >> kTimeShift < (region.shared ? machine.block_start : machine.launch_start)) return;
  if ((write & kCopyUnderWay) != 0) fail_race(e, region, write, kCopies);
  if (e.access == Access::kAtomic && (write & kAtomicWrite) != 0) return;
  if (!ordered(write, e.thread, region.shared))
    fail_race(e, region, write, (write & kAtomicWrite) != 0 ? "changed in an atomic operation" : "wrote");
}

void check_against_read(const Event& e, const Region& region, uint64_t read) {
  const Machine& m = machine;
  const uint64_t time = read >> kTimeShift;
  if (time < m.launch_start) return;
  if (!ordered(read, e.thread, region.shared)) fail_race(e, region, read, "read");
  if ((read & kSeveralBlocks) != 0 && !region.shared && !ordered_after_some_block())
    fail_race(e, region, read, "and other blocks read");
  if (time < m.barrier_time) return;
  if ((read & kSeveralWarps) != 0) fail_race(e, region, read, "and other warps read");
  if ((read & kSeveralLanes) != 0 && time >= e.thread.warp->synced)
    fail_race(e, region, read, "and other lanes of the warp read");
}

// The record of reads of a cell, with one more by `thread`.
uint64_t with_read(uint64_t read, const Thread& thread, uint64_t stamp) {
  const Machine& m = machine;
  const uint64_t time = read >> kTimeShift;
  if (time < m.launch_start) return stamp;
  if (time < m.block_start) return stamp | kSeveralBlocks;
  if (time < m.barrier_time) return stamp | (read & kSeveralBlocks);
  const int who = static_cast<int>(read >> kThreadShift & 0xfff);
  if (who == thread.number) return stamp | (read & 7);
  if (who / kWarpLanes != thread.number / kWarpLanes) return stamp | (read & 7) | kSeveralWarps;
  if (time < thread.warp->synced) return stamp | (read & (kSeveralWarps | kSeveralBlocks));
  return stamp | (read & 7) | kSeveralLanes;
}

void check_cell(const Event& e, const Region& region, Cell& cell, uint64_t stamp) {
  if (e.access == Access::kCopyEnd) {
    cell.write = stamp;
    return;
  }
  if (cell.write != 0) check_against_write(e, region, cell.write);
  if (e.access == Access::kRead) {
    cell.read = cell.read == 0 ? stamp : with_read(cell.read, e.thread, stamp);
    return;
  }
  if (cell.read != 0) check_against_read(e, region, cell.read);
  cell.read = 0;
  cell.write = stamp | (e.access == Access::kAtomic      ? kAtomicWrite
                        : e.access == Access::kCopyStart ? kCopyUnderWay
                                                         : 0);
}

Region* region_of(uintptr_t at) {
  if (dynamic_part->contains(at)) return dynamic_part;
  if (last_static != nullptr && last_static->contains(at)) return last_static;
  if (last_global != nullptr && last_global->contains(at)) return last_global;
  if (Region* found = find_region(static_regions(), at)) return last_static = found;
  Region* found = find_region(device_regions(), at);
  if (found != nullptr) last_global = found;
  return found;
}

bool readable_outside(uintptr_t at, size_t bytes) {
  return (at >= closure.begin && at + bytes <= closure.end) || in_module(at, bytes);
}

}  // namespace

void check_access(const void* address, size_t bytes, Access access, const char* what, const void* code) {
  Thread& thread = *machine.current;
  const auto at = reinterpret_cast<uintptr_t>(address);
  const auto stack = reinterpret_cast<uintptr_t>(thread.fiber.stack);
  if (at - stack < kStackBytes && bytes <= stack + kStackBytes - at) return;
  if (!checking || bytes == 0) return;
  const Event e{at, bytes, access, what, code, thread};
  Region* region = region_of(at);
  if (region == nullptr) {
    if (access == Access::kRead && readable_outside(at, bytes)) return;
    fail_memory(e);
  }
  if (bytes > region->end - at) fail_memory(e);
  const uint64_t stamp = machine.clock << kTimeShift | static_cast<uint64_t>(thread.number) << kThreadShift;
  for (uintptr_t from = at, end = at + bytes; from < end;) {
    const uintptr_t page_end = (from >> kPageShift << kPageShift) + (uintptr_t{1} << kPageShift);
    const uintptr_t to = std::min(end, page_end);
    Page& page = region->page(from);
    const int size = std::countr_zero(from | to | uintptr_t{1} << kLargestCell);
    if (page.cells == nullptr || page.shift > size) page.refine(size);
    constexpr uintptr_t kInPage = (uintptr_t{1} << kPageShift) - 1;
    Cell* cell = page.cells.get() + ((from & kInPage) >> page.shift);
    for (size_t count = (to - from) >> page.shift; count > 0; --count) check_cell(e, *region, *cell++, stamp);
    from = to;
  }
}

void note_launch(const void* closure_begin, size_t closure_bytes) {
  Machine& m = machine;
  m.launch_start = ++m.clock;
  const auto begin = reinterpret_cast<uintptr_t>(closure_begin);
  closure = {begin, begin + closure_bytes};
  dynamic_part = dynamic_region();
  dynamic_part->end = dynamic_part->begin + m.shared_bytes;
  last_static = last_global = nullptr;
  begin_launch_order();
}

void note_block() {
  Machine& m = machine;
  m.block_start = m.barrier_time = m.order_changed = ++m.clock;
  begin_block_order(m.block_start);
}

void note_barrier() { machine.barrier_time = machine.order_changed = ++machine.clock; }

void note_warp_barrier(Warp& warp) { warp.synced = machine.order_changed = ++machine.clock; }

void note_fence(Thread& thread) {
  if (!checking) return;
  Machine& m = machine;
  thread.fence = m.order_changed = ++m.clock;
  thread.fence_after_barrier = m.barrier_time;
  thread.fence_after_warp = thread.warp->synced;
  finish_acquire(thread);
}

void note_atomic(Thread& thread, const void* address) {
  if (!checking) return;
  ++machine.clock;
  release(thread, address);
  acquire(thread, address);
}

}  // namespace redrafter::simt
