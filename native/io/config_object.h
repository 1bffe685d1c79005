// Typed access to the keys of a configuration file. Every failure is ERR_CONFIG and says which file, which
// key, what was expected and what is there. Keys that nobody asks for are ignored.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "io/json.h"

namespace redrafter {

class ConfigObject {
 public:
  // Reads and parses a file, which must hold a JSON object. Throws ERR_FILE or ERR_CONFIG.
  static ConfigObject read(const std::string& path);

  // Present and not null. Which of the optional keys may be null is for the caller to decide, by asking this.
  bool has(const char* key) const;
  std::optional<json::Value> find(const char* key) const { return value_.find(key); }

  int64_t integer(const char* key, int64_t low, int64_t high) const;
  double number(const char* key, double low, double high) const;
  bool boolean(const char* key) const;
  std::string string(const char* key) const;
  ConfigObject object(const char* key) const;

  // The same for keys that may be absent.
  int64_t integer_or(const char* key, int64_t fallback, int64_t low, int64_t high) const;
  double number_or(const char* key, double fallback, double low, double high) const;
  bool boolean_or(const char* key, bool fallback) const;

  const json::Value& value() const { return value_; }

  // Throws ERR_CONFIG: `"<file>": "<key>" <problem>`.
  [[noreturn]] void fail(std::string_view key, const std::string& problem) const;
  // The same for a value that is not what it must be: `... must be <expected>, got <value>`.
  [[noreturn]] void fail_type(std::string_view key, const std::string& expected,
                              const json::Value& got) const;

 private:
  ConfigObject(std::shared_ptr<const json::Document> document, json::Value value, std::string where);
  json::Value require(const char* key, const char* expected) const;

  std::shared_ptr<const json::Document> document_;  // shared with the objects inside it
  json::Value value_;
  std::string where_;
};

}  // namespace redrafter
