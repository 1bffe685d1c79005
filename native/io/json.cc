#include "io/json.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"
#include "io/text.h"

namespace redrafter::json {
namespace {

bool is_digit(int c) { return c >= '0' && c <= '9'; }

class Parser {
 public:
  Parser(std::string_view text, const char* code, const std::string& where)
      : text_(text), code_(code), where_(where) {}

  Document run() {
    if (text_.size() > std::numeric_limits<uint32_t>::max()) fail_at(0, "text is larger than 4 GiB");
    const size_t invalid = first_invalid_utf8(text_);
    if (invalid != text_.size()) fail_at(invalid, "not valid UTF-8");
    if (text_.substr(0, 3) == "\xef\xbb\xbf") fail_at(0, "starts with a byte order mark, which JSON forbids");
    skip_space();
    value(0, 0, 0);
    skip_space();
    if (at_ != text_.size()) fail_at(at_, "unexpected text after the JSON value");
    return std::move(document_);
  }

 private:
  template <typename... Parts>
  [[noreturn]] void fail_at(size_t byte, const Parts&... parts) const {
    fail(code_, where_, ": invalid JSON at byte ", byte, ": ", parts...);
  }

  // The next character, or -1 at the end.
  int peek() const { return at_ < text_.size() ? static_cast<unsigned char>(text_[at_]) : -1; }

  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\n\r").find(text_[at_]) != std::string_view::npos)
      ++at_;
  }

  void expect(char c, const char* place) {
    if (peek() != c) fail_at(at_, "expected '", c, "' ", place, ", found ", found());
    ++at_;
  }

  std::string found() const {
    if (at_ >= text_.size()) return "the end of the text";
    uint32_t code;
    return quote(text_.substr(at_, decode_utf8(text_.substr(at_, 4), &code)));
  }

  void value(int depth, uint32_t key_begin, uint32_t key_bytes) {
    if (document_.nodes.size() >= kMaxNodes) fail_at(at_, "more than ", kMaxNodes, " values");
    const auto index = static_cast<uint32_t>(document_.nodes.size());
    document_.nodes.emplace_back();
    document_.nodes[index].key_begin = key_begin;
    document_.nodes[index].key_bytes = key_bytes;
    const int c = peek();
    if (c == '{' || c == '[') {
      if (depth >= kMaxDepth) fail_at(at_, "nested deeper than ", kMaxDepth, " levels");
      if (c == '{') {
        object(index, depth);
      } else {
        array(index, depth);
      }
    } else {
      scalar(index, c);
    }
    document_.nodes[index].end = static_cast<uint32_t>(document_.nodes.size());
  }

  void scalar(uint32_t index, int c) {
    const auto begin = static_cast<uint32_t>(document_.text.size());
    Kind kind;
    if (c == '"') {
      string();
      kind = Kind::kString;
    } else if (c == '-' || is_digit(c)) {
      number();
      kind = Kind::kNumber;
    } else {
      kind = literal();
    }
    Node& node = document_.nodes[index];
    node.kind = kind;
    node.text_begin = begin;
    node.text_bytes = static_cast<uint32_t>(document_.text.size()) - begin;
  }

  Kind literal() {
    const std::pair<std::string_view, Kind> literals[] = {
        {"null", Kind::kNull}, {"false", Kind::kFalse}, {"true", Kind::kTrue}};
    for (const auto& [word, kind] : literals) {
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      return kind;
    }
    fail_at(at_, "expected a value, found ", found());
  }

  void array(uint32_t index, int depth) {
    ++at_;
    skip_space();
    uint32_t count = 0;
    if (peek() == ']') {
      ++at_;
    } else {
      while (true) {
        value(depth + 1, 0, 0);
        ++count;
        skip_space();
        if (peek() == ']') break;
        expect(',', "or ']' in an array");
        skip_space();
      }
      ++at_;
    }
    document_.nodes[index].kind = Kind::kArray;
    document_.nodes[index].count = count;
  }

  void object(uint32_t index, int depth) {
    const size_t begin = at_++;
    skip_space();
    uint32_t count = 0;
    if (peek() == '}') {
      ++at_;
    } else {
      while (true) {
        member(depth);
        ++count;
        skip_space();
        if (peek() == '}') break;
        expect(',', "or '}' in an object");
        skip_space();
      }
      ++at_;
    }
    document_.nodes[index].kind = Kind::kObject;
    document_.nodes[index].count = count;
    document_.nodes[index].end = static_cast<uint32_t>(document_.nodes.size());
    reject_duplicate_keys(index, begin);
  }

  void member(int depth) {
    if (peek() != '"') fail_at(at_, "expected a key in double quotes, found ", found());
    const auto key_begin = static_cast<uint32_t>(document_.text.size());
    string();
    const uint32_t key_bytes = static_cast<uint32_t>(document_.text.size()) - key_begin;
    skip_space();
    expect(':', "after a key");
    skip_space();
    value(depth + 1, key_begin, key_bytes);
  }

  // By sorting, so that no choice of keys makes it slow.
  void reject_duplicate_keys(uint32_t index, size_t begin) {
    keys_.clear();
    for (const Value member : Value(&document_, index)) keys_.push_back(member.key());
    std::sort(keys_.begin(), keys_.end());
    const auto twice = std::adjacent_find(keys_.begin(), keys_.end());
    if (twice != keys_.end()) fail_at(begin, "the object has the key ", quote(*twice), " twice");
  }

  // Appends the decoded string to the document's text.
  void string() {
    const size_t begin = at_++;
    while (true) {
      const size_t run = at_;
      while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
             static_cast<unsigned char>(text_[at_]) >= 0x20) {
        ++at_;
      }
      document_.text.append(text_, run, at_ - run);
      const int c = peek();
      if (c < 0) fail_at(begin, "the string has no end");
      if (c < 0x20) fail_at(at_, "a control character in a string must be escaped");
      ++at_;
      if (c == '"') return;
      escape();
    }
  }

  // After a backslash.
  void escape() {
    const size_t begin = at_ - 1;
    const int c = peek();
    const std::string_view names = "\"\\/bfnrt";
    const std::string_view meanings = "\"\\/\b\f\n\r\t";
    if (c == 'u') {
      ++at_;
      append_utf8(document_.text, escaped_code_point(begin));
      return;
    }
    const size_t which = c < 0 ? std::string_view::npos : names.find(static_cast<char>(c));
    if (which == std::string_view::npos) fail_at(begin, "unknown escape in a string");
    document_.text += meanings[which];
    ++at_;
  }

  uint32_t escaped_code_point(size_t begin) {
    const uint32_t first = hex4(begin);
    if (first < 0xd800 || first > 0xdfff) return first;
    if (first <= 0xdbff && text_.substr(at_, 2) == "\\u") {
      at_ += 2;
      const uint32_t second = hex4(begin);
      if (second >= 0xdc00 && second <= 0xdfff) return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    }
    fail_at(begin, "a \\u escape is half of a surrogate pair");
  }

  uint32_t hex4(size_t begin) {
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const int c = peek();
      const int lower = c | 0x20;
      if (is_digit(c)) {
        code = code << 4 | static_cast<uint32_t>(c - '0');
      } else if (c >= 0 && lower >= 'a' && lower <= 'f') {
        code = code << 4 | static_cast<uint32_t>(lower - 'a' + 10);
      } else {
        fail_at(begin, "\\u must be followed by four hexadecimal digits");
      }
    }
    return code;
  }

  void digits(size_t begin) {
    if (!is_digit(peek())) fail_at(begin, "malformed number");
    while (is_digit(peek())) ++at_;
  }

  void number() {
    const size_t begin = at_;
    if (peek() == '-') ++at_;
    if (peek() == '0') {
      ++at_;
      if (is_digit(peek())) fail_at(begin, "a number must not start with 0");
    } else {
      digits(begin);
    }
    if (peek() == '.') {
      ++at_;
      digits(begin);
    }
    if (peek() == 'e' || peek() == 'E') {
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      digits(begin);
    }
    document_.text.append(text_, begin, at_ - begin);
  }

  std::string_view text_;
  const char* code_;
  const std::string& where_;
  size_t at_ = 0;
  Document document_;
  std::vector<std::string_view> keys_;
};

}  // namespace

Document parse(std::string_view text, const char* code, const std::string& where) {
  return Parser(text, code, where).run();
}

}  // namespace redrafter::json
