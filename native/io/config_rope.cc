#include "io/config_rope.h"

#include "io/text.h"

namespace redrafter {
namespace {

using json::Kind;
using json::Value;

constexpr int64_t kMaxPositions = 2147483647;
constexpr double kMaxTheta = 1e15;
constexpr double kLeastFactor = 1e-6, kMostFactor = 1e6;

void require_full_rotation(const ConfigObject& object) {
  if (!object.has("partial_rotary_factor")) return;
  const Value value = *object.find("partial_rotary_factor");
  if (value.as_double() != 1.0) {
    object.fail_type("partial_rotary_factor", "1 (rotation of a part of a head is not supported)", value);
  }
}

RopeScaling scaling_type(const std::string& name, const char* key, const ConfigObject& object) {
  if (name == "default") return RopeScaling::kNone;
  if (name == "linear") return RopeScaling::kLinear;
  if (name == "llama3") return RopeScaling::kLlama3;
  if (name == "yarn") return RopeScaling::kYarn;
  object.fail(key, "is " + quote(name) + ", which is not supported (default, linear, llama3 and yarn are)");
}

// "rope_type", or "type" as it was called before. Files for both generations have both.
RopeScaling read_type(const ConfigObject& object) {
  const bool has_new = object.has("rope_type"), has_old = object.has("type");
  if (!has_new && !has_old) {
    if (object.has("factor")) object.fail("rope_type", "is missing, although there is a \"factor\"");
    return RopeScaling::kNone;
  }
  const char* key = has_new ? "rope_type" : "type";
  const RopeScaling type = scaling_type(object.string(key), key, object);
  if (has_new && has_old && object.string("type") != object.string("rope_type")) {
    object.fail("type", "is " + quote(object.string("type")) + ", but \"rope_type\" is " +
                            quote(object.string("rope_type")));
  }
  return type;
}

void read_llama3(const ConfigObject& object, RopeConfig& rope) {
  rope.low_freq_factor = object.number("low_freq_factor", kLeastFactor, kMostFactor);
  rope.high_freq_factor = object.number("high_freq_factor", kLeastFactor, kMostFactor);
  rope.original_max_positions = object.integer("original_max_position_embeddings", 1, kMaxPositions);
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    object.fail_type("high_freq_factor", "greater than \"low_freq_factor\"",
                     *object.find("high_freq_factor"));
  }
}

void read_yarn(const ConfigObject& object, int64_t max_positions, RopeConfig& rope) {
  const auto optional = [&](const char* key, double fallback, double low) {
    return object.has(key) ? object.number(key, low, kMostFactor) : fallback;
  };
  rope.original_max_positions = object.has("original_max_position_embeddings")
                                    ? object.integer("original_max_position_embeddings", 1, kMaxPositions)
                                    : max_positions;
  rope.attention_factor = optional("attention_factor", 0.0, kLeastFactor);
  rope.mscale = optional("mscale", 0.0, 0.0);
  rope.mscale_all_dim = optional("mscale_all_dim", 0.0, 0.0);
  rope.beta_fast = optional("beta_fast", 32.0, kLeastFactor);
  rope.beta_slow = optional("beta_slow", 1.0, kLeastFactor);
  rope.truncate = object.boolean_or("truncate", true);
  if (rope.beta_fast < rope.beta_slow) {
    object.fail("beta_fast", "must not be less than \"beta_slow\"");
  }
  // Its formula divides by ln(theta).
  if (rope.theta <= 1.0) object.fail("rope_theta", "must be greater than 1 for yarn");
}

RopeConfig read_object(const ConfigObject& object, double theta, int64_t max_positions) {
  for (const Value member : object.value()) {
    if (!member.is(Kind::kObject)) continue;
    object.fail(member.key(), "is an object: settings per layer type are not supported");
  }
  require_full_rotation(object);
  RopeConfig rope;
  rope.theta = object.number_or("rope_theta", theta, 1.0, kMaxTheta);
  rope.scaling = read_type(object);
  if (rope.scaling == RopeScaling::kNone) return rope;
  rope.factor = object.number("factor", kLeastFactor, kMostFactor);
  if (rope.scaling == RopeScaling::kLlama3) read_llama3(object, rope);
  if (rope.scaling == RopeScaling::kYarn) read_yarn(object, max_positions, rope);
  return rope;
}

}  // namespace

RopeConfig read_rope(const ConfigObject& config, int64_t max_positions) {
  require_full_rotation(config);
  RopeConfig rope;
  rope.theta = config.number_or("rope_theta", 10000.0, 1.0, kMaxTheta);
  const bool has_old = config.has("rope_scaling"), has_new = config.has("rope_parameters");
  if (has_new) {
    const RopeConfig read = read_object(config.object("rope_parameters"), rope.theta, max_positions);
    if (has_old && !(read == read_object(config.object("rope_scaling"), rope.theta, max_positions))) {
      config.fail("rope_parameters", "and \"rope_scaling\" are both there and contradict each other");
    }
    return read;
  }
  if (has_old) return read_object(config.object("rope_scaling"), rope.theta, max_positions);
  return rope;
}

}  // namespace redrafter
