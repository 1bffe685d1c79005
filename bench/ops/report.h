// What is printed and written of a pass, beside the limits of the machine.
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>

#include "machine.h"

namespace redrafter::bench {

struct Options {
  std::vector<int64_t> rows{1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64, 128, 512};
  std::vector<std::string> levels, dtypes{"bf16", "f32"};
  int64_t threads = 2, hidden = 1280, ffn = 3840, megabytes = 320, context = 256;
  double seconds = 0.4;
  std::string json, model;
};

class Report {
 public:
  // Of what follows: a level and dtype, and the weights that a pass reads and multiplies with.
  void begin(const std::string& level, const std::string& dtype, int64_t threads, double bytes, double macs,
             const Machine& machine);
  // A pass of so many rows.
  void pass(int64_t rows, double seconds);
  // The part of an op in it.
  void op(const char* name, double seconds, int64_t calls);
  void write(const std::string& file) const;

 private:
  void add(const std::string& entry);
  std::string json_, level_, dtype_;
  int64_t threads_ = 0, rows_ = 0;
  double bytes_ = 0.0, macs_ = 0.0, first_ = 0.0, last_ = 0.0;
  Machine machine_{};
};

// Throws what loading throws.
void measure_matmul(const std::string& level, const std::string& dtype, const Options&, ThreadPool&, Report&);
void measure_steps(const std::string& level, const std::string& dtype, const Options&, ThreadPool&, Report&);

}  // namespace redrafter::bench
