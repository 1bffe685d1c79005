#include <cmath>
#include <limits>
#include <locale>
#include <sstream>

#include "io/json.h"
#include "io/text.h"

namespace redrafter::json {

std::optional<Value> Value::find(std::string_view key) const {
  if (!is(Kind::kObject)) return std::nullopt;
  for (const Value member : *this) {
    if (member.key() == key) return member;
  }
  return std::nullopt;
}

std::optional<uint64_t> Value::as_u64() const {
  if (!is(Kind::kNumber)) return std::nullopt;
  uint64_t result = 0;
  for (const char c : text()) {
    if (c < '0' || c > '9') return std::nullopt;
    const auto digit = static_cast<uint64_t>(c - '0');
    if (result > (std::numeric_limits<uint64_t>::max() - digit) / 10) return std::nullopt;
    result = result * 10 + digit;
  }
  return result;
}

std::optional<double> Value::as_double() const {
  if (!is(Kind::kNumber)) return std::nullopt;
  // Not strtod, which follows the process's locale; not from_chars, which some C++ libraries lack for
  // doubles.
  std::istringstream in{std::string(text())};
  in.imbue(std::locale::classic());
  double result = 0.0;
  if (!(in >> result) || !std::isfinite(result)) return std::nullopt;
  return result;
}

std::string Value::describe() const {
  switch (kind()) {
    case Kind::kNull:
      return "null";
    case Kind::kFalse:
      return "false";
    case Kind::kTrue:
      return "true";
    case Kind::kNumber:
      return text().size() <= 40 ? std::string(text()) : std::string(text().substr(0, 40)) + "...";
    case Kind::kString:
      return "the string " + quote(text());
    case Kind::kArray:
      return "an array";
    case Kind::kObject:
      return "an object";
  }
  return "?";
}

}  // namespace redrafter::json
