// The state of the emulator: the launch that runs, its block, warps and threads, and how threads wait for
// each other. One launch runs at a time in a process; nothing here is locked beyond that.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "testing/simt/fiber.h"
#include "testing/simt/simt.h"

namespace redrafter::simt {

constexpr int kWarpLanes = 32, kMaxThreads = 1024;
constexpr size_t kMaxSharedBytes = 227 * 1024;
constexpr uint32_t kPoison = 0xFFC5C5C5u;  // a quiet NaN as fp32, a large negative number as int32

struct Random {
  uint64_t state;
  uint32_t next() {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return static_cast<uint32_t>(state * 0x2545F4914F6CDD1Du >> 32);
  }
  uint32_t below(uint32_t count) { return static_cast<uint32_t>(uint64_t{next()} * count >> 32); }
};

// An asynchronous copy that no wait has covered: 16 bytes, or zeros where `from` is null.
struct AsyncCopy {
  void* to;
  const void* from;
  int group;  // -1 until it is committed
  bool done;
};

struct Warp;
struct Thread {
  Fiber fiber;
  uint3 index;
  int number = 0;  // in the block
  bool finished = false;
  const char* waits_in = nullptr;
  Warp* warp = nullptr;
  std::vector<AsyncCopy> copies;
  int groups = 0;  // committed so far
  // When it called __threadfence last, and the barriers of block and warp it had passed then; see check.h.
  uint64_t fence = 0, fence_after_barrier = 0, fence_after_warp = 0;

  int lane() const { return number % kWarpLanes; }
};

// What all lanes of a warp do together: run() gets the arguments of all lanes and puts each lane's result
// there.
struct Collective {
  const char* name;
  void (*run)(void* const (&arguments)[kWarpLanes]);
  bool orders_memory = false;
};
struct Warp {
  Thread* threads = nullptr;
  int lanes = 0;
  int arrived = 0;
  const Collective* collective = nullptr;
  uint64_t synced = 0;  // when it met in __syncwarp last
  void* arguments[kWarpLanes];
};

// A block barrier with its reductions over the predicates of all threads.
struct Barrier {
  const char* name = nullptr;
  int arrived = 0;
  int count = 0;  // of predicates that hold
};

struct Machine {
  std::mutex one_launch;
  uint64_t seed = 1;
  Random random{1};

  const char* kernel = nullptr;
  dim3 grid, block;
  uint3 block_index{};
  void (*body)(const void*) = nullptr;
  const void* closure = nullptr;
  size_t shared_bytes = 0;

  int thread_count = 0, finished = 0;
  std::vector<Thread> threads = std::vector<Thread>(kMaxThreads);
  std::vector<Warp> warps = std::vector<Warp>(kMaxThreads / kWarpLanes);
  std::vector<Thread*> ready;
  Barrier barrier;
  int predicates = 0;  // of the barrier that was passed last
  Fiber outside;       // who launched
  Thread* current = nullptr;
  std::vector<uint64_t> block_order;  // of the launch
  // Moments of the checker, see check.h; order_changed is the last one that orders accesses.
  uint64_t clock = 0, launch_start = 0, block_start = 0, barrier_time = 0, order_changed = 0;
  std::string problem;  // the first of the launch that runs, or empty
};
extern Machine machine;

// Ends the launch with this problem; the fibers of the block are left as they are.
[[noreturn]] void fail(std::string what);

void make_all_ready();
// Lets another thread run until this one is ready again.
void run_next(bool ends = false);
// Arrives where all lanes of the warp meet; `arguments` are of this lane. Returns when run() has been called.
void join_warp(const Collective& collective, unsigned mask, void* arguments);
// Arrives at a barrier of the block; returns how many threads came with a predicate that holds.
int join_block(const char* name, bool predicate);

// Does some of the copies under way of this thread, or all of those up to a group.
void progress_copies(Thread& thread);
void finish_copies(Thread& thread, int last_group);

// Shared memory of the block that runs.
bool in_shared(const void* address, size_t bytes);
bool poison_shared(size_t dynamic_bytes);  // false without memory
bool shared_guards_intact();

// The block at a place in the order of the launch.
uint3 block_index_of(uint64_t place);

std::string text(const uint3& index);
std::string hex(const void* address);

}  // namespace redrafter::simt
