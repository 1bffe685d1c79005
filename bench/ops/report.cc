#include "report.h"

#include <fstream>

namespace redrafter::bench {
namespace {

template <typename... Parts>
std::string text(const char* format, Parts... parts) {
  char line[512];
  std::snprintf(line, sizeof line, format, parts...);
  return line;
}

long long whole(int64_t n) { return static_cast<long long>(n); }

}  // namespace

void Report::begin(const std::string& level, const std::string& dtype, int64_t threads, double bytes,
                   double macs, const Machine& machine) {
  level_ = level, dtype_ = dtype, threads_ = threads, bytes_ = bytes, macs_ = macs, machine_ = machine,
  first_ = 0.0;
  std::printf(
      "\n%s %s: %.0f MB of weights, %lld threads, reads %.1f GB/s, peak %.1f GFLOP/s, hand-over %.2f us\n",
      level.c_str(), dtype.c_str(), bytes / 1e6, whole(threads), machine.bytes_per_s / 1e9,
      2 * machine.multiply_adds_per_s / 1e9, machine.hand_over_s * 1e6);
  std::printf("%6s %10s %8s %9s %7s %7s %7s %7s\n", "rows", "ms", "GB/s", "GFLOP/s", "bytes", "peak", "floor",
              "cost");
}

void Report::pass(int64_t rows, double seconds) {
  if (first_ == 0.0) first_ = seconds;
  rows_ = rows, last_ = seconds;
  const double macs = macs_ * static_cast<double>(rows);
  const double bytes = bytes_ / machine_.bytes_per_s / seconds,
               peak = macs / machine_.multiply_adds_per_s / seconds;
  std::printf("%6lld %10.3f %8.1f %9.1f %6.0f%% %6.0f%% %6.0f%% %7.2f\n", whole(rows), seconds * 1e3,
              bytes_ / seconds / 1e9, 2 * macs / seconds / 1e9, 100 * bytes, 100 * peak,
              100 * std::max(bytes, peak), seconds / first_);
  std::fflush(stdout);
  add(text(
      R"({"level":"%s","dtype":"%s","rows":%lld,"threads":%lld,"weightBytes":%.0f,"ms":%.4f,"bytesPerS":%.4g,)"
      R"("flopPerS":%.4g,"readBytesPerS":%.4g,"peakFlopPerS":%.4g,"cost":%.4f})",
      level_.c_str(), dtype_.c_str(), whole(rows), whole(threads_), bytes_, seconds * 1e3, bytes_ / seconds,
      2 * macs / seconds, machine_.bytes_per_s, 2 * machine_.multiply_adds_per_s, seconds / first_));
}

void Report::op(const char* name, double seconds, int64_t calls) {
  std::printf("         %-10s %9.3f ms %5.1f%% %8lld calls\n", name, seconds * 1e3, 100 * seconds / last_,
              whole(calls));
  add(text(R"({"level":"%s","dtype":"%s","rows":%lld,"op":"%s","ms":%.4f,"calls":%lld})", level_.c_str(),
           dtype_.c_str(), whole(rows_), name, seconds * 1e3, whole(calls)));
}

void Report::add(const std::string& entry) { json_ += (json_.empty() ? "\n" : ",\n") + entry; }

void Report::write(const std::string& file) const {
  if (!file.empty()) std::ofstream(file) << "{\"passes\":[" << json_ << "\n]}\n";
}

}  // namespace redrafter::bench
