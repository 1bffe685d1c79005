#include <algorithm>
#include <cstring>
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

// One block of random numbers, repeated: weights of gigabytes need not be random all through.
void Memory::random16(void* to, size_t count) {
  static const std::vector<uint16_t> block = [] {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0f, 0.02f);
    std::vector<uint16_t> values(size_t{1} << 20);
    for (uint16_t& value : values) value = f32_to_bf16(normal(random));
    return values;
  }();
  auto* elements = static_cast<uint16_t*>(to);
  size_t done = std::min(block.size(), count);
  backend_.upload(elements, block.data(), done * sizeof(uint16_t), stream_);
  for (; done < count; done += std::min(done, count - done)) {
    backend_.copy(elements + done, elements, std::min(done, count - done) * sizeof(uint16_t), stream_);
  }
}

Matrix Memory::matrix(int64_t rows, int64_t cols) {
  const size_t size = static_cast<size_t>(backend_.matrix_bytes(rows, cols, DType::kBF16));
  Matrix w{bytes(size), DType::kBF16, rows, cols};
  random16(w.data, size / sizeof(uint16_t));
  return w;
}

std::vector<Matrix> Memory::matrices(int64_t rows, int64_t cols) {
  const size_t size = static_cast<size_t>(backend_.matrix_bytes(rows, cols, DType::kBF16));
  std::vector<Matrix> all;
  const size_t count = 2 + (cold_ ? 2 * kSecondLevelCache / size : 0);
  for (size_t i = 0; i < count; ++i) all.push_back(matrix(rows, cols));
  return all;
}

}  // namespace redrafter::lab
