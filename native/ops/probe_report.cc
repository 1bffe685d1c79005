#include "ops/probe_report.h"

#include <algorithm>
#include <charconv>
#include <iterator>

namespace redrafter {
namespace {

// What a report can hold. Codes that only the addon gives are not among them.
constexpr const char* kCodes[] = {"COMPANION_FAILED", "COMPANION_MISMATCH", "NO_DRIVER",
                                  "DRIVER_TOO_OLD",   "NO_DEVICE",          "UNSUPPORTED_DEVICE",
                                  "SELF_TEST_FAILED", "TOO_LITTLE_MEMORY"};

std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  }
  return out + '"';
}

std::string written(const Reason& reason) {
  return "\"code\":" + (reason.code == nullptr ? "null" : in_quotes(reason.code)) +
         ",\"message\":" + in_quotes(reason.message);
}

class Reader {
 public:
  explicit Reader(std::string_view text) : left_(text) {}

  bool done() const { return left_.empty(); }

  bool take(std::string_view expected) {
    if (left_.substr(0, expected.size()) != expected) return false;
    left_.remove_prefix(expected.size());
    return true;
  }

  bool string(std::string* value) {
    value->clear();
    if (!take("\"")) return false;
    while (!left_.empty() && left_.front() != '"') {
      if (left_.front() == '\\') left_.remove_prefix(1);
      if (left_.empty() || static_cast<unsigned char>(left_.front()) < 0x20) return false;
      *value += left_.front();
      left_.remove_prefix(1);
    }
    return take("\"");
  }

  bool reason(Reason* value) {
    if (!take("\"code\":")) return false;
    if (!take("null")) {
      std::string code;
      if (!string(&code)) return false;
      const auto known = std::find(std::begin(kCodes), std::end(kCodes), code);
      if (known == std::end(kCodes)) return false;
      value->code = *known;
    }
    return take(",\"message\":") && string(&value->message);
  }

  bool device(CudaDeviceStatus* value) {
    return take("{") && reason(&value->reason) && take(",\"name\":") && string(&value->name) &&
           take(",\"level\":") && string(&value->level) && take("}");
  }

 private:
  std::string_view left_;
};

}  // namespace

std::string write_report(const ProbeReport& report) {
  char stamp[17] = {};
  std::to_chars(stamp, stamp + 16, report.stamp, 16);
  std::string text = "{\"stamp\":" + in_quotes(stamp) + "," + written(report.missing) + ",\"devices\":[";
  for (size_t i = 0; i < report.devices.size(); ++i) {
    const CudaDeviceStatus& device = report.devices[i];
    text += std::string(i == 0 ? "" : ",") + "{" + written(device.reason) +
            ",\"name\":" + in_quotes(device.name) + ",\"level\":" + in_quotes(device.level) + "}";
  }
  return text + "]}\n";
}

bool read_report(std::string_view text, ProbeReport* report) {
  Reader reader(text);
  std::string stamp;
  if (!reader.take("{\"stamp\":") || !reader.string(&stamp) || !reader.take(",")) return false;
  const char* end = stamp.data() + stamp.size();
  const auto [stop, error] = std::from_chars(stamp.data(), end, report->stamp, 16);
  if (error != std::errc() || stop != end) return false;
  if (!reader.reason(&report->missing) || !reader.take(",\"devices\":[")) return false;
  report->devices.clear();
  while (!reader.take("]}\n")) {
    if (!report->devices.empty() && !reader.take(",")) return false;
    if (report->devices.size() == kMaxCudaDevices || !reader.device(&report->devices.emplace_back()))
      return false;
  }
  return reader.done() && (report->missing.code != nullptr) == report->devices.empty();
}

}  // namespace redrafter
