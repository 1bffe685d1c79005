// Persistent worker threads for one engine. run() splits [0, tasks) over them; which thread takes which task
// never changes a result, because ops split over outputs only.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace redrafter {

class ThreadPool {
 public:
  // `threads` counts the caller: 1 means no worker threads at all.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(task, thread) for each task in [0, tasks); returns when all are done. thread is in [0,
  // size()). `work` is a rough count of multiply-adds in all tasks together: less than a hand-over costs is
  // done here. body must not throw.
  template <typename Body>
  void run(int64_t tasks, int64_t work, const Body& body) {
    if (tasks <= 1 || work < kWorthSharing || workers_.empty()) {
      for (int64_t i = 0; i < tasks; ++i) body(i, 0);
      return;
    }
    dispatch(tasks, &body,
             [](const void* b, int64_t task, int thread) { (*static_cast<const Body*>(b))(task, thread); });
  }

 private:
  using Invoke = void (*)(const void*, int64_t, int);
  static constexpr int64_t kWorthSharing = 200'000;  // about 5 us on one core

  void dispatch(int64_t tasks, const void* body, Invoke invoke);
  void work(int thread);
  void drain(uint32_t generation, int thread);
  void join();

  std::vector<std::thread> workers_;
  // A task is claimed by a compare-and-swap on (generation << 32 | next task), so a worker that wakes late
  // can neither take a task of another generation nor hold up one that is already done.
  std::atomic<uint64_t> claim_{0};
  std::atomic<uint32_t> generation_{0};
  std::atomic<int64_t> done_{0};
  std::atomic<const void*> body_{nullptr};
  std::atomic<Invoke> invoke_{nullptr};
  std::atomic<int64_t> tasks_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace redrafter
