#include "io/config_object.h"

#include <sstream>
#include <utility>

#include "base/check.h"
#include "io/file.h"
#include "io/text.h"

namespace redrafter {

using json::Kind;
using json::Value;

constexpr uint64_t kMaxConfigBytes = uint64_t{4} << 20;

ConfigObject::ConfigObject(std::shared_ptr<const json::Document> document, Value value, std::string where)
    : document_(std::move(document)), value_(value), where_(std::move(where)) {}

ConfigObject ConfigObject::read(const std::string& path) {
  const std::string text = read_text_file(path, kMaxConfigBytes, "ERR_CONFIG");
  const std::string where = quote_path(path);
  auto document = std::make_shared<const json::Document>(json::parse(text, "ERR_CONFIG", where));
  const Value value = json::root(*document);
  REDRAFTER_REQUIRE(value.is(Kind::kObject), "ERR_CONFIG", where, ": expected a JSON object, got ",
                    value.describe());
  return ConfigObject(std::move(document), value, where + ": ");
}

void ConfigObject::fail(std::string_view key, const std::string& problem) const {
  redrafter::fail("ERR_CONFIG", where_, quote(key), " ", problem);
}

void ConfigObject::fail_type(std::string_view key, const std::string& expected, const Value& got) const {
  fail(key, "must be " + expected + ", got " + got.describe());
}

bool ConfigObject::has(const char* key) const {
  const std::optional<Value> value = find(key);
  return value && !value->is(Kind::kNull);
}

Value ConfigObject::require(const char* key, const char* expected) const {
  const std::optional<Value> value = find(key);
  if (!value) fail(key, std::string("is missing, expected ") + expected);
  return *value;
}

int64_t ConfigObject::integer(const char* key, int64_t low, int64_t high) const {
  const Value value = require(key, "an integer");
  const std::optional<uint64_t> number = value.as_u64();
  if (!number || *number < static_cast<uint64_t>(low) || *number > static_cast<uint64_t>(high)) {
    fail_type(key, "an integer from " + std::to_string(low) + " to " + std::to_string(high), value);
  }
  return static_cast<int64_t>(*number);
}

double ConfigObject::number(const char* key, double low, double high) const {
  const Value value = require(key, "a number");
  const std::optional<double> number = value.as_double();
  if (!number || !(*number >= low && *number <= high)) {
    std::ostringstream expected;
    expected << "a number from " << low << " to " << high;
    fail_type(key, expected.str(), value);
  }
  return *number;
}

bool ConfigObject::boolean(const char* key) const {
  const Value value = require(key, "true or false");
  if (!value.is_bool()) fail_type(key, "true or false", value);
  return value.is(Kind::kTrue);
}

std::string ConfigObject::string(const char* key) const {
  const Value value = require(key, "a string");
  if (!value.is(Kind::kString)) fail_type(key, "a string", value);
  return std::string(value.text());
}

ConfigObject ConfigObject::object(const char* key) const {
  const Value value = require(key, "an object");
  if (!value.is(Kind::kObject)) fail_type(key, "an object", value);
  return ConfigObject(document_, value, where_ + quote(key) + ": ");
}

int64_t ConfigObject::integer_or(const char* key, int64_t fallback, int64_t low, int64_t high) const {
  return find(key) ? integer(key, low, high) : fallback;
}

double ConfigObject::number_or(const char* key, double fallback, double low, double high) const {
  return find(key) ? number(key, low, high) : fallback;
}

bool ConfigObject::boolean_or(const char* key, bool fallback) const {
  return find(key) ? boolean(key) : fallback;
}

}  // namespace redrafter
