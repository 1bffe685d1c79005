#include "base/threads.h"

#include <exception>

#include "base/check.h"

#if defined(_MSC_VER)
#include <intrin.h>
#endif

namespace redrafter {
namespace {

// About 20 us on current processors: longer than the gap between two ops of one forward pass, short enough
// not to burn a core between rounds.
constexpr int kSpins = 2000;

inline void pause() {
#if defined(_MSC_VER) && defined(_M_X64)
  _mm_pause();
#elif defined(_MSC_VER) && defined(_M_ARM64)
  __yield();
#elif defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::exception& error) {  // of std::thread, or no memory for it
    join();                                // those that did start
    fail("ERR_OOM", "cannot start ", threads - 1, " worker threads (", error.what(),
         "); load with fewer threads");
  }
}

ThreadPool::~ThreadPool() { join(); }

void ThreadPool::join() {
  stop_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::drain(uint32_t generation, int thread) {
  uint64_t claim = claim_.load();
  for (;;) {
    const int64_t task = static_cast<int64_t>(claim & 0xffffffffu);
    const int64_t tasks = tasks_.load();
    const void* body = body_.load();
    const Invoke invoke = invoke_.load();
    if (static_cast<uint32_t>(claim >> 32) != generation || task >= tasks) return;
    // Success means that the generation, and with it what was read above, is still the current one.
    if (!claim_.compare_exchange_weak(claim, claim + 1)) continue;
    invoke(body, task, thread);
    done_.fetch_add(1);
    claim = claim_.load();
  }
}

void ThreadPool::dispatch(int64_t tasks, const void* body, Invoke invoke) {
  const uint32_t generation = generation_.load() + 1;
  claim_.store(static_cast<uint64_t>(generation - 1) << 32 |
               0xffffffffu);  // nothing to claim while we set up
  body_.store(body);
  invoke_.store(invoke);
  tasks_.store(tasks);
  done_.store(0);
  claim_.store(static_cast<uint64_t>(generation) << 32);
  generation_.store(generation);
  generation_.notify_all();
  drain(generation, 0);
  for (int spin = 0; done_.load() != tasks; ++spin) {
    if (spin < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  for (;;) {
    for (int spin = 0; spin < kSpins && generation_.load() == seen; ++spin) pause();
    while (generation_.load() == seen) generation_.wait(seen);
    seen = generation_.load();
    if (stop_.load()) return;
    drain(seen, thread);
  }
}

}  // namespace redrafter
