#include "base/threads.h"
#include "ops/matmul.h"
#include "ops/matmul_quant.h"
#include "ops/panel_simd.h"

namespace redrafter::REDRAFTER_ISA {

void matmul(const MatmulParams& p, Stream& stream) {
  if (dtype_is_quantised(p.w.dtype)) return matmul_quant(p, stream);
  const int64_t panels = (p.w.rows + kLanes - 1) / kLanes;
  // A task is a run of panels: enough of them to balance threads, each large enough to be worth a hand-over.
  const int64_t chunk = 8;
  const int64_t tasks = (panels + chunk - 1) / chunk;
  stream.threads->run(tasks, p.rows * p.w.rows * p.w.cols, [&p, panels](int64_t task, int) {
    const int64_t first = task * chunk;
    const int64_t count = first + chunk < panels ? chunk : panels - first;
    panel_multiply(p.x, p.x_stride, p.rows, p.w, first, count, [&p](int64_t row, int64_t panel, F16 sum) {
      const int64_t n = panel * kLanes;
      const int64_t valid = p.w.rows - n;
      if (p.bias != nullptr) sum = f16_add(sum, f16_load_n(p.bias + n, valid));
      float* y = p.y + row * p.y_stride + n;
      if (p.residual != nullptr) sum = f16_add(sum, f16_load_n(p.residual + row * p.y_stride + n, valid));
      f16_store_n(y, sum, valid);
    });
  });
}

}  // namespace redrafter::REDRAFTER_ISA
