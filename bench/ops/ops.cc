// Times of the CPU backend beside what the machine can do, both measured in one run. Run with --help.
#include "ops/ops.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "report.h"

namespace redrafter::bench {
namespace {

const char* const kHelp =
    R"(usage: bench-ops [options]

Times a pass of so many rows over all matrices of a model, at each level and dtype, beside the bandwidth of reading
memory and the peak of multiply-adds, measured in the same run with the same threads. With --model, whole passes of
that model with the time of each op.

  --rows LIST       rows of a pass             (1,2,3,4,5,6,7,8,10,12,14,16,20,24,32,48,64,128,512)
  --levels LIST     avx512, avx2, neon, base   (all that run here)
  --dtypes LIST     f32, f16, bf16             (bf16,f32)
  --threads N       (2)
  --model DIR       a model to load; --dtypes may be auto
  --context N       positions before the rows, with --model (256)
  --hidden N        of the matrices, without --model (1280)
  --ffn N           (3840)
  --megabytes N     of weights: as many layers as that takes (320)
  --seconds S       least time of a measurement, the shortest pass of which counts (0.4)
  --json FILE       the same as JSON
  --help

bytes: share of the bandwidth; peak: share of the multiply-adds; floor: the larger of the two, so the share of what
the machine allows; cost: times the pass of the first number of rows.
)";

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
                      : name == "--context"   ? &o.context
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
    } else if (name == "--model") {
      o.model = value;
    } else if (name == "--json") {
      o.json = value;
    } else {
      return false;
    }
  }
  return argc % 2 == 1;
}

int run(const Options& o) {
  ThreadPool threads(static_cast<int>(o.threads));
  std::vector<std::string> levels = o.levels;
  for (const BackendStatus& status : list_backends()) {
    const bool here = status.reason.code == nullptr && std::strcmp(status.backend, "cpu") == 0;
    if (here && o.levels.empty()) levels.push_back(status.level);
  }
  Report report;
  for (const std::string& level : levels) {
    for (const std::string& dtype : o.dtypes)
      (o.model.empty() ? measure_matmul : measure_steps)(level, dtype, o, threads, report);
  }
  report.write(o.json);
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
