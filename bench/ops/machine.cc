#include "machine.h"

#include "instructions.h"
#include "ops/matmul_quant.h"

namespace redrafter::bench {
namespace {

const Instructions& instructions_of([[maybe_unused]] const std::string& level) {
#if defined(REDRAFTER_WITH_AVX512VNNI)
  if (level == "avx512vnni") return isa_avx512vnni::kInstructions;
#endif
#if defined(REDRAFTER_WITH_AVX512)
  if (level == "avx512") return isa_avx512::kInstructions;
#endif
#if defined(REDRAFTER_WITH_AVX2)
  if (level == "avx2") return isa_avx2::kInstructions;
#endif
#if defined(REDRAFTER_WITH_NEON)
  if (level == "neon") return isa_neon::kInstructions;
#endif
  return isa_base::kInstructions;
}

volatile float kept;

double hand_over(ThreadPool& threads, double seconds) {
  constexpr int kRuns = 1000;
  return shortest(seconds,
                  [&] {
                    for (int i = 0; i < kRuns; ++i) {
                      threads.run(threads.size(), INT64_MAX,
                                  [](int64_t task, int) { kept = static_cast<float>(task); });
                    }
                  }) /
         kRuns;
}

}  // namespace

int64_t matrix_bytes(const Matrix& w) {
  if (dtype_is_quantised(w.dtype)) return quant_matrix_bytes(w.rows, w.cols, w.dtype);
  return ceil_to(w.rows, kPanelRows) * w.cols * static_cast<int64_t>(dtype_bytes(w.dtype));
}

void read_once(const std::string& level, const std::vector<Matrix>& matrices, ThreadPool& threads) {
  const Instructions& instructions = instructions_of(level);
  const int64_t pieces = threads.size();
  threads.run(pieces, INT64_MAX, [&](int64_t piece, int) {
    for (const Matrix& w : matrices) {
      const int64_t part = matrix_bytes(w) / pieces / 64 * 64;
      kept = instructions.read(static_cast<const char*>(w.data) + piece * part, part);
    }
  });
}

double multiply_adds_per_s(const std::string& level, DType dtype, ThreadPool& threads, double seconds) {
  const Instructions& instructions = instructions_of(level);
  const auto run = dtype == DType::kQ8_0   ? instructions.add_bytes
                   : dtype == DType::kQ4_0 ? instructions.add_nibbles
                                           : instructions.multiply_add;
  constexpr int64_t kCount = 4'000'000;
  const double took = shortest(
      seconds, [&] { threads.run(threads.size(), INT64_MAX, [&](int64_t, int) { kept = run(kCount); }); });
  return static_cast<double>(kCount * (dtype_is_quantised(dtype) ? 64 : 16) * threads.size()) / took;
}

Machine measure_machine(const std::string& level, const std::vector<Matrix>& matrices, ThreadPool& threads,
                        double seconds) {
  int64_t bytes = 0;
  for (const Matrix& w : matrices) bytes += matrix_bytes(w);
  const double took = shortest(seconds, [&] { read_once(level, matrices, threads); });
  return {static_cast<double>(bytes) / took,
          multiply_adds_per_s(level, matrices.front().dtype, threads, seconds),
          hand_over(threads, seconds / 4)};
}

}  // namespace redrafter::bench
