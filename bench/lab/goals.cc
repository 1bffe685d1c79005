// Measured values beside what is aimed at, out of the files that the measuring commands have written.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <optional>
#include <sstream>

#include "base/check.h"
#include "io/json.h"
#include "measure.h"

namespace redrafter::lab {
namespace {

constexpr const char* kModel = "Llama-3.1-8B";

struct Goal {
  std::string name;
  double limit;
  bool at_least;  // else at most
  std::optional<double> value;
  bool holds() const { return value && (at_least ? *value >= limit : *value <= limit); }
};

double number(const json::Value& object, const char* key) {
  const std::optional<json::Value> member = object.find(key);
  const std::optional<double> value = member ? member->as_double() : std::nullopt;
  REDRAFTER_REQUIRE(value.has_value(), "ERR_FILE", "a measurement has no number ", key);
  return *value;
}

std::string text(const json::Value& object, const char* key) {
  const std::optional<json::Value> member = object.find(key);
  return member ? std::string(member->text()) : std::string();
}

// Steps at 1, 16, 32 and 64 rows, and what copying reached in the file that they are from.
struct Steps {
  std::optional<double> share, us[65];
};

void read_steps(const json::Value& file, Steps& steps) {
  const std::optional<json::Value> kernels = file.find("kernels");
  if (!kernels) return;
  for (const json::Value each : *kernels) {
    if (text(each, "model") != kModel || text(each, "kernel") != "step") continue;
    const double rows = number(each, "rows"), us = number(each, "us");
    if (rows >= 1 && rows <= 64) steps.us[static_cast<size_t>(rows)] = us;
    if (rows == 1) steps.share = number(each, "bytes") / us * 1e6 / number(file, "copyBytesPerSecond");
  }
}

struct Rounds {
  std::optional<double> host_us, eta;
};

void read_rounds(const json::Value& file, Rounds& rounds) {
  const std::optional<json::Value> measured = file.find("rounds");
  if (!measured) return;
  for (const json::Value each : *measured) {
    if (text(each, "model") != kModel) continue;
    rounds.host_us = std::max(rounds.host_us.value_or(0), number(each, "hostUs"));
    if (number(each, "simulated") == 3 && number(each, "requests") == 1) rounds.eta = number(each, "eta");
  }
}

std::vector<Goal> make_goals(const Steps& steps, const Rounds& rounds) {
  const auto ratio = [&](size_t rows) -> std::optional<double> {
    if (!steps.us[1] || !steps.us[rows]) return std::nullopt;
    return *steps.us[rows] / *steps.us[1];
  };
  return {
      {"plain step, share of the copy bandwidth", 0.80, true, steps.share},
      {"step of 16 rows over a plain step", 1.03, false, ratio(16)},
      {"step of 32 rows over a plain step", 1.06, false, ratio(32)},
      {"step of 64 rows over a plain step", 1.12, false, ratio(64)},
      {"host, us of a round, the worst of all", 50, false, rounds.host_us},
      {"eta of 1 request at 3 tokens per step, simulated", 0.87, true, rounds.eta},
  };
}

}  // namespace

int print_goals(const Options& o) {
  REDRAFTER_REQUIRE(!o.files.empty(), "ERR_INVALID_ARGUMENT", "goals needs the files of measurements");
  Steps steps;
  Rounds rounds;
  for (const std::string& path : o.files) {
    std::ifstream file(path);
    REDRAFTER_REQUIRE(file.good(), "ERR_FILE", "cannot read ", path);
    std::ostringstream content;
    content << file.rdbuf();
    const json::Document document = json::parse(content.str(), "ERR_FILE", path);
    read_steps(json::root(document), steps);
    read_rounds(json::root(document), rounds);
  }
  std::printf("%s\n%-50s %10s %10s  %s\n", kModel, "goal", "value", "limit", "holds");
  std::string json;
  int64_t measured = 0, hold = 0;
  for (const Goal& goal : make_goals(steps, rounds)) {
    char value[32] = "", line[256];
    if (goal.value) std::snprintf(value, sizeof value, "%.3f", *goal.value);
    std::printf("%-50s %10s %s%8.2f  %s\n", goal.name.c_str(), value, goal.at_least ? ">=" : "<=", goal.limit,
                !goal.value    ? "not measured"
                : goal.holds() ? "yes"
                               : "no");
    std::snprintf(line, sizeof line,
                  "%s{\"goal\":\"%s\",\"value\":%s,\"limit\":%g,\"atLeast\":%s,\"holds\":%s}",
                  json.empty() ? "" : ",\n", goal.name.c_str(), goal.value ? value : "null", goal.limit,
                  goal.at_least ? "true" : "false", goal.holds() ? "true" : "false");
    json += line;
    measured += goal.value ? 1 : 0;
    hold += goal.holds() ? 1 : 0;
  }
  std::printf("%lld of %lld measured goals hold\n", static_cast<long long>(hold),
              static_cast<long long>(measured));
  if (!o.json.empty())
    std::ofstream(o.json) << "{\"model\":\"" << kModel << "\",\"goals\":[" << json << "]}\n";
  return measured == 0 ? 1 : hold == measured ? 0 : 3;
}

}  // namespace redrafter::lab
