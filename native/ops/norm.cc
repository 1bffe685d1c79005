#include "ops/norm.h"

#include <cmath>

#include "base/threads.h"

namespace redrafter {
namespace {

constexpr int kParts = 16;

float sum_of_squares(const float* x, int64_t dim) {
  float part[kParts] = {};
  int64_t i = 0;
  for (; i + kParts <= dim; i += kParts) {
    for (int j = 0; j < kParts; ++j) part[j] += x[i + j] * x[i + j];
  }
  for (int j = 0; i + j < dim; ++j) part[j] += x[i + j] * x[i + j];
  for (int width = kParts / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) part[j] += part[j + width];
  }
  return part[0];
}

}  // namespace

void norm_cpu(const NormParams& p, Stream& stream) {
  constexpr int64_t kRowsPerTask = 4;
  stream.threads->run(
      (p.rows + kRowsPerTask - 1) / kRowsPerTask, p.rows * p.groups * p.dim, [&p](int64_t task, int) {
        for (int64_t r = task * kRowsPerTask; r < p.rows && r < (task + 1) * kRowsPerTask; ++r) {
          const int64_t source = p.gather != nullptr ? p.gather[r] : r;
          for (int64_t g = 0; g < p.groups; ++g) {
            const float* x = p.x + source * p.x_stride + g * p.dim;
            float* y = p.y + r * p.y_stride + g * p.dim;
            const float scale =
                1.0f / std::sqrt(sum_of_squares(x, p.dim) / static_cast<float>(p.dim) + p.eps);
            for (int64_t i = 0; i < p.dim; ++i) y[i] = x[i] * scale * p.weight[i];
          }
        }
      });
}

}  // namespace redrafter
