// Times of single ops of the CPU backend, by the host's clock.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "base/threads.h"
#include "measure.h"

namespace redrafter::lab {
namespace {

constexpr int64_t kMostRows = 64;

// Microseconds of one run: the shortest of spans of several runs each, as what else the machine does only
// makes them longer.
double shortest_us(const Run& run, Stream& stream, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto spent = [](Clock::time_point since) {
    return std::chrono::duration<double, std::micro>(Clock::now() - since).count();
  };
  int64_t turn = 0;
  auto start = Clock::now();
  run(stream, turn++);
  start = Clock::now();
  run(stream, turn++);
  const double once = spent(start) + 0.01;
  const int64_t runs = std::max<int64_t>(1, static_cast<int64_t>(seconds * 1e6 / 5 / once));
  double best = once;
  for (int span = 0; span < 5; ++span) {
    start = Clock::now();
    for (int64_t i = 0; i < runs; ++i) run(stream, turn++);
    best = std::min(best, spent(start) / static_cast<double>(runs));
  }
  return best;
}

}  // namespace

void measure_on_cpu(const Options& o) {
  const Backend& backend = find_backend(o.device);
  ThreadPool threads(static_cast<int>(o.threads));
  BackendStream opened(backend, &threads);
  std::ostringstream json;
  json << "{\"level\":\"" << backend.level << "\",\"threads\":" << o.threads << ",\"kernels\":[";
  std::printf("%s, %lld threads\n%-10s %-12s %-22s %5s %10s %8s %9s\n", backend.level,
              static_cast<long long>(o.threads), "model", "kernel", "shape", "rows", "us", "GB/s", "GFLOP/s");
  const char* separator = "\n";
  for (const auto& [model, c] : selected_cases(o)) {
    // bench/ops has products beside what the machine can do.
    if (c.rows > kMostRows || (c.kernel == "matmul" && o.kernel.empty())) continue;
    Memory memory(backend, opened.get());
    const double us = shortest_us(c.prepare(memory), opened.get(), o.seconds);
    std::printf("%-10s %-12s %-22s %5lld %10.2f %8.1f %9.1f\n", model.name, c.kernel.c_str(), c.shape.c_str(),
                static_cast<long long>(c.rows), us, c.cost.bytes / us / 1e3, c.cost.flops / us / 1e3);
    std::fflush(stdout);
    json << separator << "{\"model\":\"" << model.name << "\",\"kernel\":\"" << c.kernel << "\",\"shape\":\""
         << c.shape << "\",\"rows\":" << c.rows << ",\"bytes\":" << c.cost.bytes
         << ",\"flops\":" << c.cost.flops << ",\"us\":" << us << '}';
    separator = ",\n";
  }
  json << "]}\n";
  if (o.json.empty()) return;
  std::ofstream file(o.json);
  file << json.str();
  file.close();
  REDRAFTER_REQUIRE(file.good(), "ERR_FILE", "cannot write ", o.json);
}

}  // namespace redrafter::lab
