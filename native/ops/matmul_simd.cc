#include "base/threads.h"
#include "ops/matmul.h"
#include "ops/quant_simd.h"

namespace redrafter::REDRAFTER_ISA {
namespace {

// Panels [0, panels) as tasks that shrink: each takes two thirds of a thread's share of what is left, so that
// few are handed over and yet threads end together, even when one of them is held up. None has less than
// `least` panels but the last.
struct Runs {
  int64_t panels, threads, least;
  // The number of runs; where run `wanted` begins and how long it is.
  int64_t find(int64_t wanted, int64_t& first, int64_t& count) const {
    int64_t run = 0, at = 0;
    for (; at < panels; ++run) {
      int64_t n = (panels - at) * 2 / (3 * threads) / 2 * 2;
      if (n < least) n = least;
      if (n > panels - at) n = panels - at;
      if (run == wanted) first = at, count = n;
      at += n;
    }
    return run;
  }
};

// Weights worth a hand-over: reading 64 KB of them takes microseconds.
constexpr int64_t kTaskWeights = 32 << 10;

}  // namespace

void matmul(const MatmulParams& p, Stream& stream) {
  const Operand x = operand(p.w, p.x, p.x_stride, p.rows, p.room, stream);
  const int64_t needed = (kTaskWeights + p.w.cols * kLanes - 1) / (p.w.cols * kLanes);
  const Runs runs{(p.w.rows + kLanes - 1) / kLanes, stream.threads->size(), ceil_to(needed, 2)};
  int64_t none = 0;
  stream.threads->run(runs.find(-1, none, none), p.rows * p.w.rows * p.w.cols,
                      [&p, &x, &runs](int64_t task, int) {
                        int64_t first = 0, count = 0;
                        runs.find(task, first, count);
                        multiply(x, p.rows, p.w, first, count, [&p](int64_t row, int64_t panel, F16 sum) {
                          const int64_t n = panel * kLanes;
                          const int64_t valid = p.w.rows - n;
                          if (p.bias != nullptr) sum = f16_add(sum, f16_load_n(p.bias + n, valid));
                          float* y = p.y + row * p.y_stride + n;
                          if (p.residual != nullptr)
                            sum = f16_add(sum, f16_load_n(p.residual + row * p.y_stride + n, valid));
                          f16_store_n(y, sum, valid);
                        });
                      });
}

}  // namespace redrafter::REDRAFTER_ISA
