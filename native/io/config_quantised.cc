#include "io/config_quantised.h"

#include "base/quant.h"
#include "io/text.h"

namespace redrafter {

std::optional<DType> read_quantised(const ConfigObject& config) {
  constexpr const char* kUnsupported =
      ": of quantized checkpoints only those that redrafter quantize has written are supported; use the F32, "
      "F16 or BF16 weights";
  for (const char* key : {"compression_config", "quantization"}) {
    if (config.has(key)) config.fail(key, std::string("is present") + kUnsupported);
  }
  if (!config.has("quantization_config")) return std::nullopt;
  const ConfigObject ours = config.object("quantization_config");
  const std::string method = ours.has("quant_method") ? ours.string("quant_method") : "";
  if (method != "redrafter") config.fail("quantization_config", std::string("is present") + kUnsupported);
  ours.integer("group_size", kGroup, kGroup);
  const std::string format = ours.string("format");
  for (const DType dtype : {DType::kQ8_0, DType::kQ4_0}) {
    if (format == dtype_name(dtype)) return dtype;
  }
  ours.fail("format", "is " + quote(format) + R"(, it must be "q8_0" or "q4_0")");
}

}  // namespace redrafter
