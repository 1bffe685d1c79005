#include "probe/sides.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iomanip>
#include <limits>

#include "base/philox.h"

namespace redrafter {
namespace {

constexpr uint32_t kPoison = 0xFFC5C5C5u;  // a quiet NaN, a large negative integer
constexpr size_t kGuardBytes = 256;

std::vector<uint32_t> poison(size_t bytes) { return std::vector<uint32_t>((bytes + 3) / 4, kPoison); }

}  // namespace

Floats numbers(uint64_t seed, int64_t count) {
  Floats values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(2.0 * philox_uniform(seed, i, 0, DrawPurpose::kToken) - 1.0);
  }
  return values;
}

Floats numbers(uint64_t seed, int64_t count, DType dtype) {
  Floats values = numbers(seed, count);
  const std::vector<uint8_t> bytes = encoded(values, dtype);
  convert_elements(bytes.data(), dtype, values.data(), DType::kF32, count);
  return values;
}

std::vector<uint8_t> encoded(const Floats& values, DType dtype) {
  std::vector<uint8_t> bytes(values.size() * dtype_bytes(dtype));
  convert_elements(values.data(), DType::kF32, bytes.data(), dtype, static_cast<int64_t>(values.size()));
  return bytes;
}

Side::Side(const Backend& backend) : backend_(backend), stream_(backend, &threads_) {}

void* Side::put_bytes(const void* from, size_t bytes) {
  regions_.push_back({DeviceBuffer(backend_, bytes), bytes, false});
  backend_.upload(regions_.back().memory.as<void>(), from, bytes, stream());
  return regions_.back().memory.as<void>();
}

void* Side::out_bytes(size_t bytes) {
  void* memory = put_bytes(poison(bytes + kGuardBytes).data(), bytes + kGuardBytes);
  regions_.back().bytes = bytes;
  regions_.back().guarded = true;
  return memory;
}

void Side::get_bytes(const char* op, void* to, const void* from, size_t bytes) {
  backend_.download(to, from, bytes, stream());
  for (const Region& region : regions_) {
    if (region.memory.as<void>() != from || !region.guarded) continue;
    std::vector<uint8_t> guard(kGuardBytes);
    backend_.download(guard.data(), region.memory.as<char>() + region.bytes, kGuardBytes, stream());
    const std::vector<uint32_t> whole = poison(region.bytes + kGuardBytes);
    REDRAFTER_REQUIRE(std::memcmp(guard.data(), reinterpret_cast<const char*>(whole.data()) + region.bytes,
                                  kGuardBytes) == 0,
                      "SELF_TEST_FAILED", op, ": something was written behind its result");
  }
}

Matrix Side::matrix(const Floats& weights, int64_t rows, DType dtype) {
  const int64_t cols = static_cast<int64_t>(weights.size()) / rows, first = rows / 3;
  Matrix w{nullptr, dtype, rows, cols};
  w.data = out_bytes(static_cast<size_t>(backend_.matrix_bytes(rows, cols, dtype)));
  const std::vector<uint8_t> source = encoded(weights, dtype);
  const uint8_t* second = source.data() + static_cast<size_t>(first * cols) * dtype_bytes(dtype);
  backend_.matmul_pack({source.data(), 0, first, w}, stream());
  backend_.matmul_pack({second, first, rows - first, w}, stream());
  return w;
}

void Side::expect_clean() {
  std::vector<uint32_t> counters(static_cast<size_t>(stream().counter_count));
  backend_.download(counters.data(), stream().counters, counters.size() * sizeof(uint32_t), stream());
  const auto left = std::count_if(counters.begin(), counters.end(), [](uint32_t n) { return n != 0; });
  REDRAFTER_REQUIRE(left == 0, "SELF_TEST_FAILED", left,
                    " counters of the stream are not zero behind the ops");
}

std::string text_of(float value) {
  std::ostringstream text;
  text << std::setprecision(std::numeric_limits<float>::max_digits10) << value;
  return text.str();
}

std::string text_of(int32_t value) { return std::to_string(value); }

double product_bound(int64_t terms) {
  const auto n = static_cast<double>(terms);
  return 19 * std::ceil(n / 16) * 2 * kUnit + (n + 6) * kUnit;
}

void expect_near(const std::string& op, int64_t place, double device, double cpu, double bound) {
  REDRAFTER_REQUIRE(std::fabs(device - cpu) <= bound, "SELF_TEST_FAILED", op, ": value ", place, " is ",
                    device, ", expected ", cpu, " within ", bound);
}

}  // namespace redrafter
