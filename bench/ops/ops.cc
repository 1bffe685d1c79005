// Times of the matrix product of the CPU backend beside what the machine can do, both measured in one run: a
// pass of `rows` rows over the matrices of a model. Run with --help.
#include "ops/ops.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/reason.h"
#include "base/threads.h"
#include "machine.h"

namespace redrafter::bench {
namespace {

const char* const kHelp =
    R"(usage: bench-ops [options]

Times a pass of so many rows over all matrices of a model, at each level and dtype, beside the bandwidth of reading
memory and the peak of multiply-adds, measured in the same run with the same threads.

  --rows LIST       rows of a pass             (1,2,3,4,5,6,7,8,10,12,14,16,20,24,32,48,64,128,512)
  --levels LIST     avx512, avx2, neon, base   (all that run here)
  --dtypes LIST     f32, f16, bf16             (bf16,f32)
  --threads N       (2)
  --hidden N        (1280)
  --ffn N           (3840)
  --megabytes N     of weights: as many layers as that takes (320)
  --seconds S       least time of a measurement, the shortest pass of which counts (0.4)
  --json FILE       the same as JSON
  --help

bytes: share of the bandwidth; peak: share of the multiply-adds; floor: the larger of the two, so the share of what
the machine allows; cost: times the pass of the first number of rows.
)";

struct Options {
  std::vector<int64_t> rows{1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64, 128, 512};
  std::vector<std::string> levels, dtypes{"bf16", "f32"};
  int64_t threads = 2, hidden = 1280, ffn = 3840, megabytes = 320;
  double seconds = 0.4;
  std::string json;
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

bool parse(int argc, char** argv, Options& o) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    const int64_t number = std::strtoll(value.c_str(), nullptr, 10);
    int64_t* target = name == "--threads"     ? &o.threads
                      : name == "--hidden"    ? &o.hidden
                      : name == "--ffn"       ? &o.ffn
                      : name == "--megabytes" ? &o.megabytes
                                              : nullptr;
    if (target != nullptr) {
      if (number < 1) return false;
      *target = number;
    } else if (name == "--rows") {
      o.rows.clear();
      for (const std::string& each : split(value)) o.rows.push_back(std::strtoll(each.c_str(), nullptr, 10));
      if (o.rows.empty() || *std::min_element(o.rows.begin(), o.rows.end()) < 1) return false;
    } else if (name == "--levels") {
      o.levels = split(value);
    } else if (name == "--dtypes") {
      o.dtypes = split(value);
    } else if (name == "--seconds") {
      o.seconds = std::strtod(value.c_str(), nullptr);
    } else if (name == "--json") {
      o.json = value;
    } else {
      return false;
    }
  }
  return argc % 2 == 1;
}

DType dtype_named(const std::string& name) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  std::fprintf(stderr, "unknown dtype %s\n", name.c_str());
  std::exit(64);
}

Limits limits_of(const std::string& level) {
#if defined(REDRAFTER_WITH_AVX512)
  if (level == "avx512") return {isa_avx512::read_memory, isa_avx512::multiply_add};
#endif
#if defined(REDRAFTER_WITH_AVX2)
  if (level == "avx2") return {isa_avx2::read_memory, isa_avx2::multiply_add};
#endif
#if defined(REDRAFTER_WITH_NEON)
  if (level == "neon") return {isa_neon::read_memory, isa_neon::multiply_add};
#endif
  return {isa_base::read_memory, isa_base::multiply_add};
}

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

// The matrices of a pass, in memory that is touched and without subnormal numbers.
class Weights {
 public:
  Weights(const Backend& backend, DType dtype, const Options& o) {
    const int64_t shapes[][2] = {
        {o.hidden * 2, o.hidden}, {o.hidden, o.hidden}, {2 * o.ffn, o.hidden}, {o.hidden, o.ffn}};
    while (bytes_ < o.megabytes * 1'000'000) {
      for (const auto& [rows, cols] : shapes) {
        const int64_t bytes = backend.matrix_bytes(rows, cols, dtype);
        memory_.emplace_back(backend, static_cast<size_t>(bytes));
        fill(memory_.back().as<char>(), bytes, dtype);
        matrices_.push_back({memory_.back().as<void>(), dtype, rows, cols});
        bytes_ += bytes;
        macs_ += rows * cols;
      }
    }
  }
  const std::vector<Matrix>& matrices() const { return matrices_; }
  int64_t bytes() const { return bytes_; }
  int64_t macs() const { return macs_; }

 private:
  static void fill(char* to, int64_t bytes, DType dtype) {
    // Numbers from 1 to 2 with random mantissas: 3f80...3fff in bf16.
    uint32_t state = 1;
    const int64_t step = static_cast<int64_t>(dtype_bytes(dtype));
    for (int64_t i = 0; i < bytes; i += step) {
      state = state * 1664525u + 1013904223u;
      const float value = bits_to_f32(0x3f800000u | state >> 9) - 1.5f;
      const uint16_t half = dtype == DType::kF16 ? f32_to_f16(value) : f32_to_bf16(value);
      std::memcpy(to + i, dtype == DType::kF32 ? static_cast<const void*>(&value) : &half,
                  static_cast<size_t>(step));
    }
  }
  std::vector<DeviceBuffer> memory_;
  std::vector<Matrix> matrices_;
  int64_t bytes_ = 0, macs_ = 0;
};

volatile float kept;

// Bytes per second of all threads together, over the very memory of the weights.
double bandwidth(const Limits& limits, const Weights& weights, ThreadPool& threads, double seconds) {
  const auto& list = weights.matrices();
  const int64_t pieces = threads.size();
  const double took = shortest(seconds, [&] {
    threads.run(pieces, INT64_MAX, [&](int64_t piece, int) {
      const size_t end = list.size() * static_cast<size_t>(piece + 1) / static_cast<size_t>(pieces);
      for (size_t i = list.size() * static_cast<size_t>(piece) / static_cast<size_t>(pieces); i < end; ++i) {
        const int64_t bytes = list[i].rows * list[i].cols * static_cast<int64_t>(dtype_bytes(list[i].dtype));
        kept = limits.read(static_cast<const char*>(list[i].data), bytes);
      }
    });
  });
  return static_cast<double>(weights.bytes()) / took;
}

double peak(const Limits& limits, ThreadPool& threads, double seconds) {
  constexpr int64_t kCount = 4'000'000;
  const double took = shortest(seconds, [&] {
    threads.run(threads.size(), INT64_MAX, [&](int64_t, int) { kept = limits.multiply_add(kCount); });
  });
  return static_cast<double>(kCount * 16 * threads.size()) / took;
}

// Seconds that a hand-over to all threads takes when there is nothing to do.
double hand_over(ThreadPool& threads, double seconds) {
  constexpr int kRuns = 1000;
  return shortest(seconds,
                  [&] {
                    for (int i = 0; i < kRuns; ++i)
                      threads.run(threads.size(), INT64_MAX, [](int64_t, int) {});
                  }) /
         kRuns;
}

struct Report {
  std::string json;
  bool any = false;
  template <typename... Parts>
  void add(const char* format, Parts... parts) {
    char line[512];
    std::snprintf(line, sizeof line, format, parts...);
    json += any ? ",\n" : "\n";
    json += line;
    any = true;
  }
};

void measure(const Backend& backend, const std::string& dtype, const Options& o, ThreadPool& threads,
             Report& report) {
  const Limits limits = limits_of(backend.level);
  const Weights weights(backend, dtype_named(dtype), o);
  const double bytes_per_s = bandwidth(limits, weights, threads, o.seconds);
  const double macs_per_s = peak(limits, threads, o.seconds);
  const double hand_over_s = hand_over(threads, o.seconds / 4);
  const double bytes = static_cast<double>(weights.bytes()), macs = static_cast<double>(weights.macs());
  std::printf(
      "\n%s %s: %.0f MB of weights, %lld threads, reads %.1f GB/s, peak %.1f GFLOP/s, hand-over %.2f us\n",
      backend.level, dtype.c_str(), bytes / 1e6, static_cast<long long>(o.threads), bytes_per_s / 1e9,
      2 * macs_per_s / 1e9, hand_over_s * 1e6);
  std::printf("%6s %10s %8s %9s %7s %7s %7s %7s\n", "rows", "ms", "GB/s", "GFLOP/s", "bytes", "peak", "floor",
              "cost");
  const int64_t most = *std::max_element(o.rows.begin(), o.rows.end());
  const int64_t widest = std::max(o.hidden, o.ffn);
  std::vector<float> x(static_cast<size_t>(most * widest), 0.25f);
  std::vector<float> y(static_cast<size_t>(most * std::max(2 * o.ffn, 2 * o.hidden)));
  Stream stream;
  stream.threads = &threads;
  double first = 0.0;
  for (const int64_t rows : o.rows) {
    const double seconds = shortest(o.seconds, [&] {
      for (const Matrix& w : weights.matrices())
        backend.matmul({x.data(), w, nullptr, nullptr, y.data(), rows, w.cols, w.rows}, stream);
    });
    if (first == 0.0) first = seconds;
    const double n = static_cast<double>(rows);
    const double byte_share = bytes / bytes_per_s / seconds, mac_share = n * macs / macs_per_s / seconds;
    std::printf("%6lld %10.2f %8.1f %9.1f %6.0f%% %6.0f%% %6.0f%% %7.2f\n", static_cast<long long>(rows),
                seconds * 1e3, bytes / seconds / 1e9, 2 * n * macs / seconds / 1e9, 100 * byte_share,
                100 * mac_share, 100 * std::max(byte_share, mac_share), seconds / first);
    std::fflush(stdout);
    report.add(
        R"({"level":"%s","dtype":"%s","rows":%lld,"threads":%lld,"weightBytes":%.0f,"ms":%.4f,"bytesPerS":%.4g,"flopPerS":%.4g,"readBytesPerS":%.4g,"peakFlopPerS":%.4g,"cost":%.4f})",
        backend.level, dtype.c_str(), static_cast<long long>(rows), static_cast<long long>(o.threads), bytes,
        seconds * 1e3, bytes / seconds, 2 * n * macs / seconds, bytes_per_s, 2 * macs_per_s, seconds / first);
  }
}

int run(const Options& o) {
  ThreadPool threads(static_cast<int>(o.threads));
  std::vector<std::string> levels = o.levels;
  if (levels.empty()) {
    for (const BackendStatus& status : list_backends()) {
      if (status.reason.code == nullptr && std::strcmp(status.backend, "cpu") == 0)
        levels.push_back(status.level);
    }
  }
  Report report;
  for (const std::string& level : levels) {
    for (const std::string& dtype : o.dtypes)
      measure(find_backend("cpu:" + level), dtype, o, threads, report);
  }
  if (!o.json.empty()) std::ofstream(o.json) << "{\"matmul\":[" << report.json << "\n]}\n";
  return 0;
}

}  // namespace
}  // namespace redrafter::bench

int main(int argc, char** argv) {
  using namespace redrafter::bench;
  if (argc == 2 && std::strcmp(argv[1], "--help") == 0) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  Options options;
  if (!parse(argc, argv, options)) {
    std::fputs(kHelp, stderr);
    return 64;
  }
  try {
    return run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
