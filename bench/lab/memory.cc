#include <algorithm>
#include <cstring>
#include <map>
#include <random>

#include "case.h"

namespace redrafter::lab {
namespace {

constexpr size_t kSecondLevelCache = size_t{64} << 20;  // more than any of the devices has

}  // namespace

float* Memory::floats(int64_t count, float scale) {
  std::mt19937 random(static_cast<unsigned>(count));
  std::uniform_real_distribution<float> uniform(-scale, scale);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = uniform(random);
  return of(values);
}

namespace {

// Not more, as weights of gigabytes need not be random all through.
std::vector<float> random_weights(int64_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// The same numbers in the form that the elements of a matrix of floats have.
std::vector<uint8_t> random_elements(DType dtype) {
  const std::vector<float> values = random_weights(1 << 20);
  std::vector<uint8_t> elements(values.size() * dtype_bytes(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = dtype == DType::kF16 ? f32_to_f16(values[i]) : f32_to_bf16(values[i]);
    if (dtype == DType::kF32) {
      std::memcpy(elements.data() + 4 * i, &values[i], 4);
    } else {
      std::memcpy(elements.data() + 2 * i, &half, 2);
    }
  }
  return elements;
}

}  // namespace

// A block whose first bytes are there gets the others by repeating them.
void Memory::repeat(void* block, size_t done, size_t bytes) {
  auto* to = static_cast<char*>(block);
  while (done < bytes) {
    const size_t more = std::min(done, bytes - done);
    backend_.copy(to + done, to, more, stream_);
    done += more;
  }
}

Matrix Memory::matrix(int64_t rows, int64_t cols, DType dtype) {
  const size_t size = static_cast<size_t>(backend_.matrix_bytes(rows, cols, dtype));
  Matrix w{bytes(size), dtype, rows, cols};
  size_t done = 0;
  if (dtype_is_quantised(dtype)) {  // whole panels, as loading makes them
    const int64_t some = std::min(ceil_to((1 << 18) / cols + 1, kPanelRows), rows);
    const std::vector<float> values = random_weights(some * cols);
    std::vector<uint8_t> groups(static_cast<size_t>(some * dtype_row_bytes(dtype, cols)));
    for (int64_t n = 0; n < some; ++n)
      quantise_row(values.data() + n * cols, cols, dtype, groups.data() + n * dtype_row_bytes(dtype, cols));
    backend_.matmul_pack({groups.data(), 0, some, {w.data, dtype, some, cols}}, stream_);
    done = static_cast<size_t>(backend_.matrix_bytes(some, cols, dtype));
  } else {
    static std::map<DType, std::vector<uint8_t>> made;
    std::vector<uint8_t>& elements = made[dtype];
    if (elements.empty()) elements = random_elements(dtype);
    done = std::min(elements.size(), size);
    backend_.upload(w.data, elements.data(), done, stream_);
  }
  repeat(w.data, done, size);
  return w;
}

std::vector<Matrix> Memory::matrices(int64_t rows, int64_t cols, DType dtype) {
  const size_t size = static_cast<size_t>(backend_.matrix_bytes(rows, cols, dtype));
  std::vector<Matrix> all{matrix(rows, cols, dtype)};
  const size_t count = 2 + (cold_ ? 2 * kSecondLevelCache / size : 0);
  while (all.size() < count) {
    all.push_back({bytes(size), dtype, rows, cols});
    backend_.copy(all.back().data, all.front().data, size, stream_);
  }
  return all;
}

}  // namespace redrafter::lab
