// What the machine can do at most, measured with the threads and, for multiply-adds, the instructions of a
// level.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/tensor.h"
#include "base/threads.h"

namespace redrafter::bench {

// Seconds of the shortest of the runs that fit in `seconds`, of three at least.
template <typename Run>
double shortest(double seconds, const Run& run) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9, total = 0.0;
  for (int i = 0; i < 3 || total < seconds; ++i) {
    const auto start = Clock::now();
    run();
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, took);
    total += took;
  }
  return best;
}

// Reads the matrices once, all threads together: each has a part of every matrix, as it has in a product.
void read_once(const std::string& level, const std::vector<Matrix>& matrices, ThreadPool& threads);

// Of all threads together, with the instructions that the level multiplies weights of `dtype` by.
double multiply_adds_per_s(const std::string& level, DType dtype, ThreadPool& threads, double seconds);

struct Machine {
  double bytes_per_s;          // of reading the matrices once, all threads together
  double multiply_adds_per_s;  // for the dtype of the first matrix
  double hand_over_s;          // of a task to all threads when there is nothing to do
};

Machine measure_machine(const std::string& level, const std::vector<Matrix>& matrices, ThreadPool& threads,
                        double seconds);

// What runs on a matrix of a level reads of memory.
int64_t matrix_bytes(const Matrix& w);

}  // namespace redrafter::bench
