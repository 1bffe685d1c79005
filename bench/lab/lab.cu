// Kernels at real shapes: what they must move, and on a device, how long they take. See README.md.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <sstream>

#include "rounds.h"
#include "timing.h"

namespace redrafter::lab {
namespace {

constexpr const char* kHelp =
    "usage: lab floors | time | rounds | once | invariance [options]\n"
    "\n"
    "  floors       bytes, operations and the least time on an H100, for every kernel; needs no device\n"
    "  time         every kernel's time and its share of the bandwidth that copying reaches\n"
    "  rounds       whole rounds on random weights, acceptance simulated, batches of 1 to 64; --rows N: only "
    "of N requests\n"
    "  once         runs every kernel once, without whole steps: for compute-sanitizer\n"
    "  invariance   compares the bits of rows between launches of different sizes\n"
    "\n"
    "  --model NAME    only shapes of this model (part of the name)\n"
    "  --kernel NAME   only kernels with NAME in their name\n"
    "  --rows N        only cases of N rows\n"
    "  --json FILE     also write the results there\n"
    "  --summary       the cases that native/ops/README.md lists\n"
    "  --markdown      floors: as a table of the Markdown kind\n";

struct Options {
  std::string command, model, kernel, json;
  int64_t rows = 0;
  bool markdown = false, summary = false;
};

// False when the arguments make no sense.
bool parse(int argc, char** argv, Options& o) {
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const bool more = i + 1 < argc;
    if (arg == "--model" && more) {
      o.model = argv[++i];
    } else if (arg == "--kernel" && more) {
      o.kernel = argv[++i];
    } else if (arg == "--rows" && more) {
      o.rows = std::atoll(argv[++i]);
    } else if (arg == "--json" && more) {
      o.json = argv[++i];
    } else if (arg == "--markdown") {
      o.markdown = true;
    } else if (arg == "--summary") {
      o.summary = true;
    } else if (o.command.empty() && arg[0] != '-') {
      o.command = arg;
    } else {
      return false;
    }
  }
  for (const char* known : {"floors", "time", "rounds", "once", "invariance"}) {
    if (o.command == known) return true;
  }
  return false;
}

struct Listed {
  const char* model;
  Case kernel;
};

// A few of all cases: 7B and 8B shapes, plain decoding, a draft tree, a full batch, a prompt chunk.
bool in_summary(const ModelShape& m, const Case& c) {
  if (m.hidden < 4096) return false;
  if (c.kernel == "step") return true;
  if (c.kernel == "attention") return c.shape == "4096 context";
  if (c.kernel == "matmul") return c.rows == 1 || c.rows == 16 || c.rows == 64 || c.rows == 512;
  const bool drafter = c.kernel == "cell" || c.kernel == "mix" || c.kernel == "residual" ||
                       c.kernel == "head_top" || c.kernel == "draft round" || c.kernel == "beam" ||
                       c.kernel == "tree";
  if (drafter) return c.rows == kBeamWidth;
  return c.kernel == "kv_compact" || c.rows == 1 || c.rows == 32;
}

std::vector<Listed> selected(const Options& o) {
  std::vector<Listed> all;
  for (const ModelShape& m : model_shapes()) {
    if (std::string(m.name).find(o.model) == std::string::npos) continue;
    std::vector<Case> cases = kernel_cases(m), drafting = drafter_cases(m);
    cases.insert(cases.end(), drafting.begin(), drafting.end());
    const std::vector<Case> steps = step_cases(m);
    cases.insert(cases.end(), steps.begin(), steps.end());
    for (Case& c : cases) {
      if (c.kernel.find(o.kernel) == std::string::npos || (o.rows != 0 && c.rows != o.rows) ||
          (o.summary && !in_summary(m, c)) || (o.command == "once" && c.kernel == "step")) {
        continue;
      }
      all.push_back({m.name, std::move(c)});
    }
  }
  return all;
}

void print_floors(const Options& o) {
  const char* row =
      o.markdown ? "| %s | %s | %s | %s | %s | %s | %s |\n" : "%-13s %-12s %-22s %5s %12s %10s %10s\n";
  std::printf(row, "model", "kernel", "shape", "rows", "MB", "GFLOP", "floor us");
  if (o.markdown) std::printf("|---|---|---|--:|--:|--:|--:|\n");
  for (const auto& [model, c] : selected(o)) {
    char mb[32], gflop[32], floor[32];
    std::snprintf(mb, sizeof mb, "%.3f", c.cost.bytes / 1e6);
    std::snprintf(gflop, sizeof gflop, "%.3f", c.cost.flops / 1e9);
    std::snprintf(floor, sizeof floor, "%.2f", c.cost.floor_us(kPeakBytesPerSecond));
    std::printf(row, model, c.kernel.c_str(), c.shape.c_str(), std::to_string(c.rows).c_str(), mb, gflop,
                floor);
  }
}

std::string now() {
  const std::time_t time = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&time));
  return text;
}

// Enough runs for about 20 ms, so that the clock and the first and last run do not matter.
int64_t runs_for(const Cost& cost) {
  return std::clamp<int64_t>(static_cast<int64_t>(20'000 / (cost.floor_us(kPeakBytesPerSecond) + 2)), 5, 200);
}

int time_all(const Options& o, const Backend& backend, Stream& stream) {
  const DeviceInfo device = device_info();
  const Bandwidth bandwidth = measure_bandwidth(backend, stream);
  std::printf("%s, compute capability %d.%d, %d multiprocessors; copy %.0f GB/s, read %.0f GB/s\n",
              device.name.c_str(), device.major, device.minor, device.processors, bandwidth.copy / 1e9,
              bandwidth.read / 1e9);
  std::ostringstream json;
  json << "{\"date\":\"" << now() << "\",\"device\":\"" << device.name << "\",\"computeCapability\":\""
       << device.major << '.' << device.minor << "\",\"driver\":" << device.driver
       << ",\"copyBytesPerSecond\":" << bandwidth.copy << ",\"readBytesPerSecond\":" << bandwidth.read
       << ",\"kernels\":[";
  std::printf("%-13s %-12s %-22s %5s %10s %10s %7s\n", "model", "kernel", "shape", "rows", "us", "floor us",
              "share");
  const char* separator = "\n";
  for (const auto& [model, c] : selected(o)) {
    Memory memory(backend, stream);
    const double us = time_us(c.prepare(memory), stream, runs_for(c.cost), 7);
    const double floor = c.cost.floor_us(bandwidth.copy);
    std::printf("%-13s %-12s %-22s %5lld %10.2f %10.2f %6.1f%%\n", model, c.kernel.c_str(), c.shape.c_str(),
                static_cast<long long>(c.rows), us, floor, 100 * floor / us);
    std::fflush(stdout);
    json << separator << "{\"model\":\"" << model << "\",\"kernel\":\"" << c.kernel << "\",\"shape\":\""
         << c.shape << "\",\"rows\":" << c.rows << ",\"bytes\":" << c.cost.bytes
         << ",\"flops\":" << c.cost.flops << ",\"us\":" << us << '}';
    separator = ",\n";
  }
  json << "]}\n";
  if (!o.json.empty()) std::ofstream(o.json) << json.str();
  return 0;
}

int time_rounds(const Options& o, const Backend& backend, Stream& stream) {
  const DeviceInfo device = device_info();
  std::ostringstream json;
  json << "{\"date\":\"" << now() << "\",\"device\":\"" << device.name
       << "\",\"simulated\":true,\"rounds\":[";
  std::printf("%s; acceptance is simulated: all work runs, only the accepted path is replaced\n",
              device.name.c_str());
  std::printf("%-13s %8s %10s %11s %9s %8s %6s\n", "model", "requests", "simulated", "tokens/step",
              "round ms", "speedup", "eta");
  const char* separator = "\n";
  for (const ModelShape& m : model_shapes()) {
    if (std::string(m.name).find(o.model) == std::string::npos) continue;
    for (const int64_t requests : {1, 4, 16, 64}) {
      if (o.rows != 0 && o.rows != requests) continue;
      for (const RoundFigures& f : measure_rounds(backend, stream, m, requests)) {
        std::printf("%-13s %8lld %10.1f %11.2f %9.3f %8.2f %6.2f\n", m.name,
                    static_cast<long long>(f.requests), f.simulated, f.tokens_per_step, f.ms, f.speedup,
                    f.speedup / f.tokens_per_step);
        std::fflush(stdout);
        json << separator << "{\"model\":\"" << m.name << "\",\"requests\":" << f.requests
             << ",\"simulated\":" << f.simulated << ",\"tokensPerStep\":" << f.tokens_per_step
             << ",\"ms\":" << f.ms << ",\"speedup\":" << f.speedup << '}';
        separator = ",\n";
      }
      if (stream.error != nullptr) {
        std::printf("%s: %s\n", stream.failed, stream.error);
        return 1;
      }
    }
  }
  json << "]}\n";
  if (!o.json.empty()) std::ofstream(o.json) << json.str();
  return 0;
}

int run_once(const Options& o, const Backend& backend, Stream& stream) {
  for (const auto& [model, c] : selected(o)) {
    Memory memory(backend, stream);
    c.prepare(memory)(stream, 0);
    float bit = 0;  // a copy waits for the kernels before it
    backend.download(&bit, memory.floats(1), sizeof bit, stream);
    if (stream.error != nullptr) {
      std::printf("%s %s %s: %s: %s\n", model, c.kernel.c_str(), c.shape.c_str(), stream.failed,
                  stream.error);
      return 1;
    }
  }
  std::printf("every kernel ran\n");
  return 0;
}

int check_invariance(const Backend& backend, Stream& stream) {
  const std::vector<std::string> faults = invariance_faults(backend, stream);
  for (const std::string& fault : faults) std::printf("%s\n", fault.c_str());
  if (stream.error != nullptr) std::printf("%s: %s\n", stream.failed, stream.error);
  std::printf("row invariance: %zu faults\n", faults.size());
  return faults.empty() && stream.error == nullptr ? 0 : 1;
}

int run(const Options& o) {
  if (o.command == "floors") {
    print_floors(o);
    return 0;
  }
  if (const std::string missing = missing_device(); !missing.empty()) {
    std::fprintf(stderr, "lab: no CUDA device can be used: %s\n", missing.c_str());
    return 2;
  }
  const Backend backend = cuda_table();
  BackendStream stream(backend, nullptr);
  if (o.command == "time") return time_all(o, backend, stream.get());
  if (o.command == "rounds") return time_rounds(o, backend, stream.get());
  if (o.command == "once") return run_once(o, backend, stream.get());
  return check_invariance(backend, stream.get());
}

}  // namespace
}  // namespace redrafter::lab

int main(int argc, char** argv) {
  redrafter::lab::Options options;
  if (argc == 2 && (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0)) {
    std::fputs(redrafter::lab::kHelp, stdout);
    return 0;
  }
  if (!redrafter::lab::parse(argc, argv, options)) {
    std::fputs(redrafter::lab::kHelp, stderr);
    return 64;
  }
  try {
    return redrafter::lab::run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lab: %s\n", error.what());
    return 1;
  }
}
