// A launch: the blocks one after another, in a random order.
#include <cstring>
#include <deque>
#include <numeric>

#include "testing/simt/check.h"
#include "testing/simt/control.h"
#include "testing/simt/machine.h"
#include "testing/simt/memory.h"
#include "testing/simt/stream.h"

namespace redrafter::simt {
namespace {

void thread_main() {
  entered_fiber();
  machine.body(machine.closure);
  Thread& thread = *machine.current;
  finish_copies(thread, thread.groups);
  thread.finished = true;
  ++machine.finished;
  run_next(true);
}

void run_block(uint64_t place) {
  Machine& m = machine;
  m.block_index = block_index_of(place);
  note_block();
  m.ready.clear();
  m.finished = 0;
  m.barrier = {};
  for (int i = 0; i < m.thread_count; ++i) {
    Thread& thread = m.threads[static_cast<size_t>(i)];
    const unsigned linear = static_cast<unsigned>(i);
    thread.index = {linear % m.block.x, linear / m.block.x % m.block.y, linear / m.block.x / m.block.y};
    thread.number = i;
    thread.finished = false;
    thread.waits_in = nullptr;
    thread.copies.clear();
    thread.groups = 0;
    thread.fence = thread.fence_after_barrier = thread.fence_after_warp = 0;
    thread.warp = &m.warps[static_cast<size_t>(i / kWarpLanes)];
    prepare_fiber(thread.fiber, fiber_stack(i), i, thread_main);
    if (thread.lane() == 0) *thread.warp = {&thread, 0, 0, nullptr, m.block_start, {}};
    ++thread.warp->lanes;
  }
  make_all_ready();
  m.current = m.ready.back();
  m.ready.pop_back();
  m.outside = {};
  switch_fiber(m.outside, m.current->fiber, false);
  m.current = nullptr;
  if (m.problem.empty() && !shared_guards_intact())
    m.problem = std::string(m.kernel) + ", block " + text(m.block_index) +
                ": wrote beside the dynamic shared memory of the block";
}

// What is wrong with the shape of a launch, or null.
const char* wrong_shape(dim3 grid, dim3 block, size_t shared_bytes) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64) return "invalid number of threads in a block";
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return "invalid number of blocks";
  if (shared_bytes > kMaxSharedBytes) return "more shared memory than a block can have";
  return nullptr;
}

// Text that lives as long as the process, as that of cudaGetErrorString does.
const char* keep(const std::string& problem) {
  static std::deque<std::string> kept;
  return kept.emplace_back(problem).c_str();
}

}  // namespace

// Runs it; what went wrong, or null.
static const char* run_launch(const char* name, dim3 grid, dim3 block, size_t shared_bytes,
                              void (*body)(const void* closure), const void* closure, size_t closure_bytes) {
  Machine& m = machine;
  const std::lock_guard<std::mutex> lock(m.one_launch);
  m.kernel = name;
  m.grid = grid, m.block = block;
  m.shared_bytes = shared_bytes;
  m.body = body, m.closure = closure;
  m.problem.clear();
  if (const char* wrong = wrong_shape(grid, block, shared_bytes)) {
    m.problem = std::string(name) + ": " + wrong;
  } else {
    m.thread_count = static_cast<int>(block.x * block.y * block.z);
    std::vector<uint64_t>& order = m.block_order;
    order.resize(uint64_t{grid.x} * grid.y * grid.z);
    std::iota(order.begin(), order.end(), uint64_t{0});
    for (uint32_t left = static_cast<uint32_t>(order.size()); left > 1; --left)
      std::swap(order[left - 1], order[m.random.below(left)]);
    if (fiber_stack(m.thread_count - 1) == nullptr) m.problem = "no memory for the stacks of a block";
    if (m.problem.empty() && !poison_shared(shared_bytes))
      m.problem = "no memory for the shared memory of a block";
    note_launch(closure, closure_bytes);
    for (size_t i = 0; i < order.size() && m.problem.empty(); ++i) {
      if (poison_shared(shared_bytes)) {
        run_block(i);
      } else {
        m.problem = "no memory for the shared memory of a block";
      }
    }
  }
  if (m.problem.empty() && !checking) {
    if (const std::string guard = broken_guard(); !guard.empty())
      m.problem = std::string(name) + ": " + guard;
  }
  return m.problem.empty() ? nullptr : keep(m.problem);
}

void launch(const char* name, dim3 grid, dim3 block, size_t shared_bytes, Stream& stream,
            void (*body)(const void* closure), const void* closure, size_t closure_bytes) {
  const auto queue = static_cast<cudaStream_t>(stream.cuda);
  if (defers(queue)) {
    // Closures hold a kernel and its parameters, which are plain data.
    std::vector<uint64_t> copy((closure_bytes + 7) / 8);
    std::memcpy(copy.data(), closure, closure_bytes);
    defer(queue, [=, copy = std::move(copy)] {
      return run_launch(name, grid, block, shared_bytes, body, copy.data(), closure_bytes);
    });
    return;
  }
  const char* problem = run_launch(name, grid, block, shared_bytes, body, closure, closure_bytes);
  if (problem == nullptr) return;
  stream.error = problem;
  stream.failed = name;
}

void set_seed(uint64_t seed) {
  const std::lock_guard<std::mutex> lock(machine.one_launch);
  machine.random.state = seed * 0x9E3779B97F4A7C15u + 0x1234567u;
  if (machine.random.state == 0) machine.random.state = 1;
}

void set_checking(bool on) {
  const std::lock_guard<std::mutex> lock(machine.one_launch);
  checking = on && can_check();
}

uint3 block_index_of(uint64_t place) {
  const uint64_t number = machine.block_order[place], x = machine.grid.x, y = machine.grid.y;
  return {static_cast<unsigned>(number % x), static_cast<unsigned>(number / x % y),
          static_cast<unsigned>(number / x / y)};
}

// --- indices

static uint64_t pair(unsigned x, unsigned y) { return uint64_t{y} << 32 | x; }
uint64_t thread_xy() { return pair(machine.current->index.x, machine.current->index.y); }
unsigned thread_z() { return machine.current->index.z; }
uint64_t block_xy() { return pair(machine.block_index.x, machine.block_index.y); }
unsigned block_z() { return machine.block_index.z; }
uint64_t block_size_xy() { return pair(machine.block.x, machine.block.y); }
unsigned block_size_z() { return machine.block.z; }
uint64_t grid_size_xy() { return pair(machine.grid.x, machine.grid.y); }
unsigned grid_size_z() { return machine.grid.z; }

}  // namespace redrafter::simt
