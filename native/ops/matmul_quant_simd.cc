#include "ops/quant_simd.h"

namespace redrafter::REDRAFTER_ISA {

void matmul_quant(const MatmulParams& p, Stream& stream) {
  const int64_t panels = (p.w.rows + kLanes - 1) / kLanes;
  constexpr int64_t kChunk = 8;  // panels of a task
  const Operand x = operand(p.w, p.x, p.x_stride, p.rows, p.room, stream);
  stream.threads->run((panels + kChunk - 1) / kChunk, p.rows * p.w.rows * p.w.cols, [&](int64_t task, int) {
    const int64_t first = task * kChunk, count = first + kChunk < panels ? kChunk : panels - first;
    multiply(x, p.rows, p.w, first, count, [&p](int64_t row, int64_t panel, F16 sum) {
      const int64_t n = panel * kLanes, valid = p.w.rows - n;
      if (p.bias != nullptr) sum = f16_add(sum, f16_load_n(p.bias + n, valid));
      if (p.residual != nullptr) sum = f16_add(sum, f16_load_n(p.residual + row * p.y_stride + n, valid));
      f16_store_n(p.y + row * p.y_stride + n, sum, valid);
    });
  });
}

}  // namespace redrafter::REDRAFTER_ISA
