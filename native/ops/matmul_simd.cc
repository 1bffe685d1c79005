#include "ops/matmul.h"
#include "ops/product_simd.h"

namespace redrafter::REDRAFTER_ISA {

void matmul(const MatmulParams& p, Stream& stream) {
  const Operand x = operand(p.w, p.x, p.x_stride, p.rows, p.room, stream);
  over_panels(p.w, p.rows, stream, [&p, &x](int64_t first, int64_t count) {
    multiply(x, p.rows, p.w, first, count, [&p](int64_t row, int64_t panel, F16 sum) {
      const int64_t n = panel * kLanes, valid = p.w.rows - n;
      if (p.bias != nullptr) sum = f16_add(sum, f16_load_n(p.bias + n, valid));
      float* y = p.y + row * p.y_stride + n;
      if (p.residual != nullptr) sum = f16_add(sum, f16_load_n(p.residual + row * p.y_stride + n, valid));
      f16_store_n(y, sum, valid);
    });
  });
}

}  // namespace redrafter::REDRAFTER_ISA
