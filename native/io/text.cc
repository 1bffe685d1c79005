#include "io/text.h"

#include <cstdio>

namespace redrafter {

size_t decode_utf8(std::string_view text, uint32_t* code_point) {
  if (text.empty()) return 0;
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[i])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) {
    *code_point = lead;
    return 1;
  }
  // Leads 0x80..0xc1 and above 0xf4 never start a code point; the rest is range-checked once decoded.
  const size_t length = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
  if (length == 0 || text.size() < length) return 0;
  uint32_t code = lead & (0xffu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0u) != 0x80u) return 0;
    code = code << 6 | (byte(i) & 0x3fu);
  }
  const uint32_t least = length == 2 ? 0x80u : length == 3 ? 0x800u : 0x10000u;
  if (code < least || code > 0x10ffffu || (code >= 0xd800u && code <= 0xdfffu)) return 0;
  *code_point = code;
  return length;
}

size_t first_invalid_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint32_t code;
    const size_t length = decode_utf8(text.substr(at, 4), &code);
    if (length == 0) return at;
    at += length;
  }
  return at;
}

void append_utf8(std::string& to, uint32_t code) {
  if (code < 0x80) {
    to += static_cast<char>(code);
    return;
  }
  const int tails = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  const uint32_t marker = tails == 1 ? 0xc0u : tails == 2 ? 0xe0u : 0xf0u;
  to += static_cast<char>(marker | code >> (6 * tails));
  for (int i = tails - 1; i >= 0; --i) to += static_cast<char>(0x80u | (code >> (6 * i) & 0x3fu));
}

// Characters that change how a terminal or log viewer shows the text around them.
static bool is_unprintable(uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x061c || (c >= 0x200b && c <= 0x200f) ||
         (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || c == '"';
}

std::string quote(std::string_view text, size_t limit) {
  std::string out = "\"";
  char escape[16];
  size_t at = 0;
  while (at < text.size()) {
    if (at >= limit) {
      return out + "\"... (" + std::to_string(text.size()) + " bytes)";
    }
    uint32_t code = 0;
    const size_t length = decode_utf8(text.substr(at, 4), &code);
    if (length == 0) {
      std::snprintf(escape, sizeof escape, "\\x%02x", static_cast<unsigned char>(text[at]));
      out += escape;
    } else if (is_unprintable(code)) {
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(code));
      out += escape;
    } else {
      out.append(text.substr(at, length));
    }
    at += length == 0 ? 1 : length;
  }
  return out + '"';
}

}  // namespace redrafter
