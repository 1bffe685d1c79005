// Text that came from a file or a caller: UTF-8 checks, and quoting for error messages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace redrafter {

// Decodes one code point of strict UTF-8 (no overlong form, no surrogate, at most U+10FFFF) from the front of
// `text`. Returns its length in bytes, or 0 when malformed or empty.
size_t decode_utf8(std::string_view text, uint32_t* code_point);

// Offset of the first byte that is not strict UTF-8, or text.size().
size_t first_invalid_utf8(std::string_view text);

// Appends the UTF-8 form of a code point.
void append_utf8(std::string& to, uint32_t code_point);

// `text` in double quotes, safe to print: control and direction-changing characters, quotes and malformed
// bytes are escaped, so a name in a file cannot forge log lines or move the cursor. At most `limit` bytes of
// text are kept. Backslashes stay as they are, for the sake of Windows paths.
std::string quote(std::string_view text, size_t limit = 120);

// The same for file paths, which are shown in full up to the length a system allows.
inline std::string quote_path(std::string_view path) { return quote(path, 4096); }

}  // namespace redrafter
