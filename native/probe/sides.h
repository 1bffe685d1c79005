// The memory of one side of a comparison, the device or the CPU: the same numbers go into both, and what
// comes out is compared.
#pragma once

#include <string>
#include <vector>

#include "base/check.h"
#include "base/threads.h"
#include "ops/ops.h"

namespace redrafter {

using Floats = std::vector<float>;

// Numbers in [-1, 1) that depend on nothing but the arguments.
Floats numbers(uint64_t seed, int64_t count);
// The same, as elements of this dtype have them.
Floats numbers(uint64_t seed, int64_t count, DType dtype);
std::vector<uint8_t> encoded(const Floats& values, DType dtype);

class Side {
 public:
  explicit Side(const Backend& backend);

  const Backend& backend() const { return backend_; }
  Stream& stream() { return stream_.get(); }

  template <typename T>
  T* put(const std::vector<T>& values) {
    return static_cast<T*>(put_bytes(values.data(), values.size() * sizeof(T)));
  }
  // Filled with NaN; what lies behind must stay as it is.
  template <typename T>
  T* out(int64_t count) {
    return static_cast<T*>(out_bytes(static_cast<size_t>(count) * sizeof(T)));
  }
  // Of put() or out(), from the start. Throws SELF_TEST_FAILED when something was written behind the latter.
  template <typename T>
  std::vector<T> get(const char* op, const T* from, int64_t count) {
    std::vector<T> values(static_cast<size_t>(count));
    get_bytes(op, values.data(), from, values.size() * sizeof(T));
    return values;
  }
  // Row-major weights, packed in two pieces.
  Matrix matrix(const Floats& weights, int64_t rows, DType dtype);
  // Throws SELF_TEST_FAILED when an op has left a counter of the stream that is not zero.
  void expect_clean();

 private:
  struct Region {
    DeviceBuffer memory;
    size_t bytes;
    bool guarded;
  };
  void* put_bytes(const void* from, size_t bytes);
  void* out_bytes(size_t bytes);
  void get_bytes(const char* op, void* to, const void* from, size_t bytes);

  const Backend& backend_;
  ThreadPool threads_{1};
  std::vector<Region> regions_;
  BackendStream stream_;
};

// How far apart the two sides may be: a factor on the magnitudes that a value was summed of.
// The bounds are those that the tests of the ops derive: a sum of n products on tensor cores takes 19
// roundings of 2^-23 for every 16 of them, on the CPU n of 2^-24; both sides are off.
constexpr double kUnit = 0x1p-24;
constexpr double kExp = 3e-7;  // relative error of an exponential
double product_bound(int64_t terms);

// Throws SELF_TEST_FAILED with op, place, values and bound when |device - cpu| is above it, or a NaN.
void expect_near(const std::string& op, int64_t place, double device, double cpu, double bound);
// All digits that tell two values apart.
std::string text_of(float value);
std::string text_of(int32_t value);
// Throws SELF_TEST_FAILED when bytes differ.
template <typename T>
void expect_equal(const std::string& op, const std::vector<T>& device, const std::vector<T>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    REDRAFTER_REQUIRE(i < device.size() && std::memcmp(&device[i], &expected[i], sizeof(T)) == 0,
                      "SELF_TEST_FAILED", op, ": value ", i, " is ", text_of(device[i]), ", expected ",
                      text_of(expected[i]), " exactly");
  }
}

}  // namespace redrafter
