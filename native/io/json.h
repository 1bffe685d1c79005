// A strict JSON reader for files that nobody vouches for. It refuses what RFC 8259 forbids or leaves open:
// duplicate keys, malformed UTF-8, lone surrogates, comments, NaN. Depth and node count are capped, and
// numbers keep their text, so that 2^53 + 1 stays exact and 1e2, 1.5 and -0 are not mistaken for integers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace redrafter::json {

enum class Kind : uint8_t { kNull, kFalse, kTrue, kNumber, kString, kArray, kObject };

// A value and everything below it take consecutive nodes: the first child of node i is node i + 1, the next
// sibling of a node is its `end`.
struct Node {
  Kind kind = Kind::kNull;
  uint32_t end = 0;    // index after the last node below
  uint32_t count = 0;  // elements or members
  uint32_t key_begin = 0, key_bytes = 0;
  uint32_t text_begin = 0, text_bytes = 0;  // decoded string, or the number as written
};

struct Document {
  std::vector<Node> nodes;
  std::string text;  // decoded keys and strings, and numbers
};

// A view of one node. Valid while its Document stays in place.
class Value {
 public:
  Value(const Document* document, uint32_t index) : document_(document), index_(index) {}

  Kind kind() const { return node().kind; }
  bool is(Kind kind) const { return node().kind == kind; }
  bool is_bool() const { return is(Kind::kTrue) || is(Kind::kFalse); }
  std::string_view key() const { return piece(node().key_begin, node().key_bytes); }
  std::string_view text() const { return piece(node().text_begin, node().text_bytes); }
  uint32_t size() const { return node().count; }

  // The member with this key. Linear: meant for objects with a few dozen members.
  std::optional<Value> find(std::string_view key) const;

  // The number, when it is written as a plain integer without sign (digits only) and fits; else nothing.
  std::optional<uint64_t> as_u64() const;
  // The number, when it is finite in double precision; else nothing.
  std::optional<double> as_double() const;

  // What the value is, for error messages: `"text"`, `1.5`, `an object`, ...
  std::string describe() const;

  class Iterator {
   public:
    Iterator(const Document* document, uint32_t index) : document_(document), index_(index) {}
    Value operator*() const { return {document_, index_}; }
    Iterator& operator++() {
      index_ = document_->nodes[index_].end;
      return *this;
    }
    bool operator!=(const Iterator& other) const { return index_ != other.index_; }

   private:
    const Document* document_;
    uint32_t index_;
  };
  // Elements or members, in file order.
  Iterator begin() const { return {document_, index_ + 1}; }
  Iterator end() const { return {document_, node().end}; }

 private:
  const Node& node() const { return document_->nodes[index_]; }
  std::string_view piece(uint32_t begin, uint32_t bytes) const {
    return std::string_view(document_->text).substr(begin, bytes);
  }

  const Document* document_;
  uint32_t index_;
};

inline Value root(const Document& document) { return {&document, 0}; }

constexpr int kMaxDepth = 64;
constexpr uint32_t kMaxNodes = 2'500'000;  // about 70 MB of nodes

// Parses one JSON value with optional white space around it. Throws Error(code) with a message that starts
// with `where` and names the byte.
Document parse(std::string_view text, const char* code, const std::string& where);

}  // namespace redrafter::json
