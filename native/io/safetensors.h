// The safetensors format: 8 bytes with the header's length, a JSON header, then the data of all tensors
// without gaps. Parsing works on bytes in memory, so that tests and fuzzers need no files.
//
// Stricter than the reference reader: duplicate keys, names with U+0000, more than 64 dimensions, headers
// above kMaxHeaderBytes and more than kMaxTensors tensors are refused. As in the reference, white space
// around the header, zero-size tensors, scalars, unaligned data and unknown keys in a tensor's entry are
// accepted.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace redrafter {

constexpr uint64_t kMaxHeaderBytes = uint64_t{16} << 20;
constexpr size_t kMaxTensors = 200'000;

struct SafetensorsTensor {
  std::string name;
  const char* stored;          // dtype as the file names it: "BF16", "F8_E4M3", ...
  std::optional<DType> dtype;  // absent: a dtype of the format that redrafter cannot compute with
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes in the data section
};

// The header's length from the first 8 bytes of a file. `path` is used in messages. Throws ERR_MODEL_FORMAT.
uint64_t parse_safetensors_length(const uint8_t (&first)[8], uint64_t file_bytes, const std::string& path);

// The tensors of a header, by ascending offset. `header` is the JSON text, header_bytes its length,
// file_bytes the size of the whole file (8 + header + data). Throws ERR_MODEL_FORMAT naming the tensor and
// the defect.
std::vector<SafetensorsTensor> parse_safetensors_header(const uint8_t* header, uint64_t header_bytes,
                                                        uint64_t file_bytes, const std::string& path);

// The message for a tensor whose dtype is absent above.
std::string unusable_dtype_message(const std::string& name, const char* stored);

}  // namespace redrafter
