// Times of single ops of the CPU backend, by the host's clock, beside what the machine can do.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>

#include "base/threads.h"
#include "machine.h"
#include "measure.h"

namespace redrafter::lab {
namespace {

constexpr int64_t kMostRows = 64;
constexpr int kSpans = 5;

// Something that is run in spans of several runs each, the shortest of which counts, as what else the machine
// does only makes them longer.
class Spans {
 public:
  Spans(Run run, Stream& stream, double seconds) : run_(std::move(run)), stream_(stream) {
    span(1);
    best_us_ = span(1) + 0.01;
    runs_ = std::max<int64_t>(1, static_cast<int64_t>(seconds * 1e6 / kSpans / best_us_));
  }
  void next() {
    span(runs_ / 16);  // its data comes to caches again
    best_us_ = std::min(best_us_, span(runs_) / static_cast<double>(runs_));
  }
  double best_us() const { return best_us_; }

 private:
  double span(int64_t runs) {
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < runs; ++i) run_(stream_, turn_++);
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
  }

  Run run_;
  Stream& stream_;
  int64_t turn_ = 0, runs_;
  double best_us_;
};

// What the machine can do at most. How fast memory is read hangs on what else uses it, so that it is measured
// in turns with each kernel.
class Limits {
 public:
  Limits(const Backend& backend, Stream& stream, const Options& o)
      : memory_(backend, stream), level_(backend.level), seconds_(o.seconds) {
    memory_read_.push_back(memory_.matrix(o.megabytes * 1'000'000 / 2048, 1024));
  }
  Run read() {
    return [this](Stream& stream, int64_t) { bench::read_once(level_, memory_read_, *stream.threads); };
  }
  double bytes() const { return count(bench::matrix_bytes(memory_read_.front())); }
  // Two for a multiply-add.
  double flops_per_s(DType dtype) {
    double& peak = peaks_[dtype];
    if (peak == 0) peak = 2 * bench::multiply_adds_per_s(level_, dtype, *memory_.stream().threads, seconds_);
    return peak;
  }

 private:
  Memory memory_;
  std::string level_;
  double seconds_;
  std::vector<Matrix> memory_read_;
  std::map<DType, double> peaks_;
};

struct Figures {
  double us, read_bytes_per_s, peak_flops_per_s;
};

Figures measure(const Case& c, const Backend& backend, Stream& stream, Limits& limits, double seconds) {
  Memory memory(backend, stream);
  Spans read(limits.read(), stream, seconds), kernel(c.prepare(memory), stream, seconds);
  for (int i = 0; i < kSpans; ++i) read.next(), kernel.next();
  return {kernel.best_us(), limits.bytes() / read.best_us() * 1e6,
          limits.flops_per_s(c.weights.value_or(DType::kF32))};
}

std::string json_of(const ModelShape& model, const Case& c, const Figures& f) {
  std::ostringstream json;
  json << "{\"model\":\"" << model.name << "\",\"kernel\":\"" << c.kernel << "\",\"shape\":\"" << c.shape
       << "\",\"dtype\":\"" << dtype_name(c.weights.value_or(DType::kF32)) << "\",\"rows\":" << c.rows
       << ",\"bytes\":" << c.cost.bytes << ",\"flops\":" << c.cost.flops << ",\"us\":" << f.us
       << ",\"readBytesPerSecond\":" << f.read_bytes_per_s << ",\"peakFlopPerSecond\":" << f.peak_flops_per_s
       << '}';
  return json.str();
}

}  // namespace

void measure_on_cpu(const Options& o) {
  const Backend& backend = find_backend(o.device);
  ThreadPool threads(static_cast<int>(o.threads));
  BackendStream opened(backend, &threads);
  Limits limits(backend, opened.get(), o);
  std::ostringstream json;
  json << "{\"level\":\"" << backend.level << "\",\"threads\":" << o.threads << ",\"kernels\":[";
  std::printf("%s, %lld threads\n%-10s %-12s %-22s %5s %5s %10s %8s %8s %8s %9s %8s\n", backend.level,
              static_cast<long long>(o.threads), "model", "kernel", "shape", "dtype", "rows", "us", "GB/s",
              "read", "of read", "GFLOP/s", "of peak");
  const char* separator = "\n";
  for (const auto& [model, c] : selected_cases(o)) {
    // bench/ops has products beside what the machine can do.
    if (c.rows > kMostRows || (c.kernel == "matmul" && o.kernel.empty())) continue;
    const Figures f = measure(c, backend, opened.get(), limits, o.seconds);
    const double bytes_per_s = c.cost.bytes / f.us * 1e6, flops_per_s = c.cost.flops / f.us * 1e6;
    std::printf("%-10s %-12s %-22s %5s %5lld %10.2f %8.1f %8.1f %7.0f%% %9.1f %7.0f%%\n", model.name,
                c.kernel.c_str(), c.shape.c_str(), dtype_name(c.weights.value_or(DType::kF32)),
                static_cast<long long>(c.rows), f.us, bytes_per_s / 1e9, f.read_bytes_per_s / 1e9,
                100 * bytes_per_s / f.read_bytes_per_s, flops_per_s / 1e9,
                100 * flops_per_s / f.peak_flops_per_s);
    std::fflush(stdout);
    json << separator << json_of(model, c, f);
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
