// A pass over the matrices of a model that exists only as its shapes.
#include <cstring>

#include "model/weights.h"
#include "ops/ops.h"
#include "report.h"

namespace redrafter::bench {
namespace {

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

}  // namespace

void measure_matmul(const std::string& level, const std::string& dtype, const Options& o, ThreadPool& threads,
                    Report& report) {
  const Backend& backend = find_backend("cpu:" + level);
  const Weights weights(backend, parse_matrix_dtype(dtype).value_or(DType::kBF16), o);
  report.begin(level, dtype, o.threads, static_cast<double>(weights.bytes()),
               static_cast<double>(weights.macs()),
               measure_machine(level, weights.matrices(), threads, o.seconds));
  const int64_t most = *std::max_element(o.rows.begin(), o.rows.end());
  const std::vector<float> x(static_cast<size_t>(most * std::max(o.hidden, o.ffn)), 0.25f);
  std::vector<float> y(static_cast<size_t>(2 * most * std::max(o.ffn, o.hidden)));
  Stream stream;
  stream.threads = &threads;
  for (const int64_t rows : o.rows) {
    report.pass(rows, shortest(o.seconds, [&] {
                  for (const Matrix& w : weights.matrices())
                    backend.matmul({x.data(), w, nullptr, nullptr, y.data(), rows, w.cols, w.rows}, stream);
                }));
  }
}

}  // namespace redrafter::bench
