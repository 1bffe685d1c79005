#include "ops/embed.h"

namespace redrafter {
namespace {

template <typename T, typename Convert>
void gather(const EmbedParams& p, const Convert& convert) {
  const int64_t hidden = p.table.cols;
  for (int64_t r = 0; r < p.rows; ++r) {
    const int64_t n = p.token[r];
    const T* panel =
        static_cast<const T*>(p.table.data) + (n / kPanelRows) * hidden * kPanelRows + n % kPanelRows;
    for (int64_t k = 0; k < hidden; ++k) p.y[r * hidden + k] = convert(panel[k * kPanelRows]);
  }
}

}  // namespace

void embed_cpu(const EmbedParams& p, Stream&) {
  switch (p.table.dtype) {
    case DType::kF32:
      return gather<float>(p, [](float v) { return v; });
    case DType::kF16:
      return gather<uint16_t>(p, [](uint16_t v) { return f16_to_f32(v); });
    default:
      return gather<uint16_t>(p, [](uint16_t v) { return bf16_to_f32(v); });
  }
}

}  // namespace redrafter
