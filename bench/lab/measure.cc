#include "measure.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <map>
#include <sstream>

#include "backends.h"
#include "model/weights.h"
#include "rounds.h"
#include "timing.h"

namespace redrafter::lab {
namespace {

// A few of all cases: 7B and 8B shapes, plain decoding, a draft tree, a full batch, a prompt chunk.
bool in_summary(const ModelShape& m, const Case& c) {
  if (m.hidden < 4096) return false;
  if (c.kernel == "step") return true;
  if (c.kernel == "attention") return c.shape == "4096 context" && (c.rows == 1 || c.rows >= 32);
  if (c.kernel == "matmul") return c.rows == 1 || c.rows == 16 || c.rows == 64 || c.rows == 512;
  const bool drafter = c.kernel == "cell" || c.kernel == "mix" || c.kernel == "residual" ||
                       c.kernel == "head_top" || c.kernel == "draft round" || c.kernel == "beam" ||
                       c.kernel == "tree";
  if (drafter) return c.rows == kBeamWidth;
  return c.kernel == "kv_compact" || c.rows == 1 || c.rows == 32;
}

bool in_command(const std::string& command, const Case& c) {
  if (command == "steps") return c.kernel == "step";
  if (command == "drafts") return c.kernel == "draft round";
  if (command == "kernels") return c.kernel != "step" && c.kernel != "draft round";
  return command != "once" || c.kernel != "step";
}

std::string now() {
  const std::time_t time = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&time));
  return text;
}

// Enough runs for about 20 ms, so that the clock and the first and last run do not matter.
int64_t runs_for(const Cost& cost, const DeviceInfo& device) {
  if (device.emulated) return 1;
  return std::clamp<int64_t>(static_cast<int64_t>(20'000 / (cost.floor_us(kPeakBytesPerSecond) + 2)), 5, 200);
}

// What every file begins with; the member that follows is left open.
std::string json_head(const DeviceInfo& device) {
  std::ostringstream json;
  json << "{\"date\":\"" << now() << "\",\"device\":\"" << device.name << "\",\"computeCapability\":\""
       << device.major << '.' << device.minor << "\",\"driver\":" << device.driver << ",\n";
  return json.str();
}

void write(const Options& o, const std::string& json) {
  if (o.json.empty()) return;
  std::ofstream file(o.json);
  file << json;
  file.close();
  REDRAFTER_REQUIRE(file.good(), "ERR_FILE", "cannot write ", o.json);
}

}  // namespace

std::vector<Listed> selected_cases(const Options& o) {
  const bool cpu = o.device.rfind("cpu", 0) == 0;
  std::vector<Listed> all;
  // Those of all dtypes; what has no weights is there once.
  const auto add = [&](ModelShape m, const std::vector<std::string>& dtypes, auto cases_of) {
    for (size_t i = 0; i < dtypes.size(); ++i) {
      m.dtype = parse_matrix_dtype(dtypes[i]).value_or(DType::kBF16);
      REDRAFTER_REQUIRE(cpu || m.dtype == DType::kBF16, "ERR_INVALID_ARGUMENT",
                        "weights are bf16 but on the CPU");
      for (const Case& c : cases_of(m)) {
        if (c.kernel.find(o.kernel) == std::string::npos || (o.rows != 0 && c.rows != o.rows) ||
            (o.summary && !in_summary(m, c)) || !in_command(o.command, c) || (i > 0 && !c.weights)) {
          continue;
        }
        all.push_back({m, c});
      }
    }
  };
  for (ModelShape m : shapes_named(o.model)) {
    if (cpu) m.kv_element_bytes = 4;
    add(m, o.dtypes, kernel_cases);
    add(m, o.drafter_dtypes, drafter_cases);
    add(m, {"bf16"}, step_cases);
  }
  return all;
}

void print_floors(const Options& o) {
  const char* row =
      o.markdown ? "| %s | %s | %s | %s | %s | %s | %s |\n" : "%-13s %-12s %-22s %5s %12s %10s %10s\n";
  std::printf(row, "model", "kernel", "shape", "rows", "MB", "GFLOP", "floor us");
  if (o.markdown) std::printf("|---|---|---|--:|--:|--:|--:|\n");
  for (const auto& [model, c] : selected_cases(o)) {
    char mb[32], gflop[32], floor[32];
    std::snprintf(mb, sizeof mb, "%.3f", c.cost.bytes / 1e6);
    std::snprintf(gflop, sizeof gflop, "%.3f", c.cost.flops / 1e9);
    std::snprintf(floor, sizeof floor, "%.2f", c.cost.floor_us(kPeakBytesPerSecond));
    std::printf(row, model.name, c.kernel.c_str(), c.shape.c_str(), std::to_string(c.rows).c_str(), mb, gflop,
                floor);
  }
}

void run_once(const Options& o, const Backend& backend, Stream& stream) {
  int64_t ran = 0;
  for (const auto& [model, c] : selected_cases(o)) {
    Memory memory(backend, stream, false);
    try {
      c.prepare(memory)(stream, 0);
      backend.wait(stream);
      check_stream(stream);
    } catch (const Error& error) {
      fail(error.code(), model.name, " ", c.kernel, " ", c.shape, ": ", error.what());
    }
    ++ran;
  }
  std::printf("every kernel ran: %lld cases\n", static_cast<long long>(ran));
}

void measure_kernels(const Options& o, const Backend& backend, Stream& stream) {
  const DeviceInfo device = device_info();
  const Bandwidth bandwidth = measure_bandwidth(backend, stream);
  std::printf("%s, compute capability %d.%d, %d multiprocessors; copy %.0f GB/s, read %.0f GB/s\n",
              device.name.c_str(), device.major, device.minor, device.processors, bandwidth.copy / 1e9,
              bandwidth.read / 1e9);
  std::ostringstream json;
  json << json_head(device) << "\"copyBytesPerSecond\":" << bandwidth.copy
       << ",\"readBytesPerSecond\":" << bandwidth.read << ",\"kernels\":[";
  const std::vector<Listed> cases = o.command == "bandwidth" ? std::vector<Listed>{} : selected_cases(o);
  if (!cases.empty()) {
    std::printf("%-13s %-12s %-22s %5s %10s %10s %8s %7s %9s\n", "model", "kernel", "shape", "rows", "us",
                "floor us", "GB/s", "share", "of 1 row");
  }
  std::map<std::string, double> one_row;  // us, by model, kernel and shape
  const char* separator = "\n";
  for (const auto& [model, c] : cases) {
    Memory memory(backend, stream, !device.emulated);
    const double us =
        time_us(backend, c.prepare(memory), stream, runs_for(c.cost, device), device.emulated ? 1 : 7);
    const double floor = c.cost.floor_us(bandwidth.copy);
    double& plain = one_row[std::string(model.name) + c.kernel + c.shape];
    if (c.rows == 1) plain = us;
    char ratio[32] = "";
    if (plain > 0) std::snprintf(ratio, sizeof ratio, "%.3f", us / plain);
    std::printf("%-13s %-12s %-22s %5lld %10.2f %10.2f %8.0f %6.1f%% %9s\n", model.name, c.kernel.c_str(),
                c.shape.c_str(), static_cast<long long>(c.rows), us, floor, c.cost.bytes / us / 1e3,
                100 * floor / us, ratio);
    std::fflush(stdout);
    json << separator << "{\"model\":\"" << model.name << "\",\"kernel\":\"" << c.kernel << "\",\"shape\":\""
         << c.shape << "\",\"rows\":" << c.rows << ",\"bytes\":" << c.cost.bytes
         << ",\"flops\":" << c.cost.flops << ",\"us\":" << us << '}';
    separator = ",\n";
  }
  json << "]}\n";
  write(o, json.str());
}

void measure_all_rounds(const Options& o, const Backend& backend, Stream& stream) {
  const DeviceInfo device = device_info();
  std::ostringstream json;
  json << json_head(device) << "\"simulated\":true,\"rounds\":[";
  std::printf("%s; acceptance is simulated: all work runs, only the accepted path is replaced\n",
              device.name.c_str());
  std::printf("%-13s %8s %10s %11s %9s %10s %8s %8s %6s\n", "model", "requests", "simulated", "tokens/step",
              "round ms", "device ms", "host us", "speedup", "eta");
  const char* separator = "\n";
  for (const ModelShape& m : shapes_named(o.model)) {
    for (const int64_t requests : {1, 4, 16, 64}) {
      if (o.rows != 0 && o.rows != requests) continue;
      for (const RoundFigures& f : measure_rounds(backend, stream, m, requests)) {
        char simulated[32] = "plain";
        if (f.simulated > 1) std::snprintf(simulated, sizeof simulated, "%.1f", f.simulated);
        std::printf("%-13s %8lld %10s %11.2f %9.3f %10.3f %8.0f %8.2f %6.2f\n", m.name,
                    static_cast<long long>(f.requests), simulated, f.tokens_per_step, f.ms, f.device_ms,
                    f.host_us(), f.speedup, f.eta());
        std::fflush(stdout);
        json << separator << "{\"model\":\"" << m.name << "\",\"requests\":" << f.requests
             << ",\"simulated\":" << f.simulated << ",\"tokensPerStep\":" << f.tokens_per_step
             << ",\"ms\":" << f.ms << ",\"deviceMs\":" << f.device_ms << ",\"hostUs\":" << f.host_us()
             << ",\"speedup\":" << f.speedup << ",\"eta\":" << f.eta() << '}';
        separator = ",\n";
      }
    }
  }
  json << "]}\n";
  write(o, json.str());
}

}  // namespace redrafter::lab
