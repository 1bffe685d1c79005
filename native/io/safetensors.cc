#include "io/safetensors.h"

#include <algorithm>
#include <limits>
#include <string_view>

#include "base/check.h"
#include "io/json.h"
#include "io/text.h"

namespace redrafter {
namespace {

using json::Kind;
using json::Value;

constexpr uint64_t kMaxUint64 = std::numeric_limits<uint64_t>::max();
constexpr uint32_t kMaxDimensions = 64;

struct StoredType {
  const char* name;
  uint64_t bits;
  std::optional<DType> dtype;
};

// Every dtype of the format. Below 8 bits, elements are packed.
const StoredType kStoredTypes[] = {
    {"F32", 32, DType::kF32},
    {"F16", 16, DType::kF16},
    {"BF16", 16, DType::kBF16},
    {"I32", 32, DType::kI32},
    {"I64", 64, DType::kI64},
    {"BOOL", 8, {}},
    {"U8", 8, DType::kU8},
    {"I8", 8, {}},
    {"U16", 16, {}},
    {"I16", 16, {}},
    {"U32", 32, {}},
    {"U64", 64, {}},
    {"F64", 64, {}},
    {"C64", 64, {}},
    {"F4", 4, {}},
    {"F6_E2M3", 6, {}},
    {"F6_E3M2", 6, {}},
    {"F8_E4M3", 8, {}},
    {"F8_E5M2", 8, {}},
    {"F8_E8M0", 8, {}},
    {"F8_E4M3FNUZ", 8, {}},
    {"F8_E5M2FNUZ", 8, {}},
};

// Throws for a defect of one tensor.
class Where {
 public:
  Where(const std::string& path, std::string_view name) : path_(path), name_(name) {}
  template <typename... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    redrafter::fail("ERR_MODEL_FORMAT", quote_path(path_), ": tensor ", quote(name_), ": ", parts...);
  }

 private:
  const std::string& path_;
  std::string_view name_;
};

const StoredType& stored_type(const Value& value, const Where& where) {
  if (!value.is(Kind::kString)) where.fail("\"dtype\" must be a string, got ", value.describe());
  for (const StoredType& type : kStoredTypes) {
    if (value.text() == type.name) return type;
  }
  where.fail("unknown dtype ", quote(value.text()), " (dtypes are upper case, as in \"F32\" or \"BF16\")");
}

std::vector<int64_t> parse_shape(const Value& value, const Where& where) {
  if (!value.is(Kind::kArray)) where.fail("\"shape\" must be an array, got ", value.describe());
  if (value.size() > kMaxDimensions) {
    where.fail("\"shape\" has ", value.size(), " dimensions, at most ", kMaxDimensions, " are supported");
  }
  std::vector<int64_t> shape;
  shape.reserve(value.size());
  for (const Value dimension : value) {
    const std::optional<uint64_t> size = dimension.as_u64();
    if (!size || *size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      where.fail("a dimension in \"shape\" must be an integer from 0 to 2^63 - 1, got ",
                 dimension.describe());
    }
    shape.push_back(static_cast<int64_t>(*size));
  }
  return shape;
}

// Sizes are multiplied as if a 0 were a 1 first, so that no order of dimensions hides an overflow behind a 0.
uint64_t shape_bytes(const std::vector<int64_t>& shape, const StoredType& type, const Where& where) {
  uint64_t bits = type.bits;
  bool empty = false;
  for (const int64_t size : shape) {
    empty = empty || size == 0;
    const auto factor = static_cast<uint64_t>(std::max<int64_t>(size, 1));
    if (bits > kMaxUint64 / factor) where.fail("the shape has more elements than 64 bits can count");
    bits *= factor;
  }
  if (empty) return 0;
  if (bits % 8 != 0) where.fail("the elements of dtype ", type.name, " do not fill whole bytes");
  return bits / 8;
}

void parse_offsets(const Value& value, uint64_t data_bytes, SafetensorsTensor& tensor, const Where& where) {
  if (!value.is(Kind::kArray) || value.size() != 2) {
    where.fail("\"data_offsets\" must be an array of two integers");
  }
  uint64_t* to = &tensor.begin;
  for (const Value offset : value) {
    const std::optional<uint64_t> number = offset.as_u64();
    if (!number)
      where.fail("\"data_offsets\" must hold integers from 0 to 2^64 - 1, got ", offset.describe());
    *to = *number;
    to = &tensor.end;
  }
  if (tensor.begin > tensor.end) {
    where.fail("\"data_offsets\" end before they begin: [", tensor.begin, ", ", tensor.end, "]");
  }
  if (tensor.end > data_bytes) {
    where.fail("data ends at byte ", tensor.end, " of the data section, but the file has only ", data_bytes,
               " bytes there (truncated?)");
  }
}

const Value require_key(const Value& entry, const char* key, const Where& where) {
  const std::optional<Value> value = entry.find(key);
  if (!value) where.fail("\"", key, "\" is missing");
  return *value;
}

SafetensorsTensor parse_tensor(const Value& entry, uint64_t data_bytes, const std::string& path) {
  const Where where(path, entry.key());
  if (entry.key().find('\0') != std::string_view::npos) where.fail("the name contains U+0000");
  if (!entry.is(Kind::kObject)) where.fail("must be described by an object, got ", entry.describe());
  const StoredType& type = stored_type(require_key(entry, "dtype", where), where);
  SafetensorsTensor tensor;
  tensor.name = entry.key();
  tensor.stored = type.name;
  tensor.dtype = type.dtype;
  tensor.shape = parse_shape(require_key(entry, "shape", where), where);
  parse_offsets(require_key(entry, "data_offsets", where), data_bytes, tensor, where);
  const uint64_t expected = shape_bytes(tensor.shape, type, where);
  if (tensor.end - tensor.begin != expected) {
    where.fail("\"data_offsets\" span ", tensor.end - tensor.begin, " bytes, but shape and dtype need ",
               expected);
  }
  return tensor;
}

void check_metadata(const Value& metadata, const std::string& path) {
  REDRAFTER_REQUIRE(metadata.is(Kind::kObject), "ERR_MODEL_FORMAT", quote_path(path),
                    ": \"__metadata__\" must be an object of strings, got ", metadata.describe());
  for (const Value entry : metadata) {
    REDRAFTER_REQUIRE(entry.is(Kind::kString), "ERR_MODEL_FORMAT", quote_path(path),
                      ": \"__metadata__\" entry ", quote(entry.key()), " must be a string, got ",
                      entry.describe());
  }
}

// Sorts by offset; then each tensor must start where the one before it ends, and the last must end with the
// file.
void check_layout(std::vector<SafetensorsTensor>& tensors, uint64_t data_bytes, const std::string& path) {
  std::sort(tensors.begin(), tensors.end(), [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
    if (a.begin != b.begin) return a.begin < b.begin;
    return a.end != b.end ? a.end < b.end : a.name < b.name;
  });
  uint64_t position = 0;
  for (const SafetensorsTensor& tensor : tensors) {
    const Where where(path, tensor.name);
    if (tensor.begin > position) {
      where.fail("data begins at ", tensor.begin, ", expected ", position, " (a hole in the data section)");
    }
    if (tensor.begin < position) {
      where.fail("data begins at ", tensor.begin, ", expected ", position, " (overlaps another tensor)");
    }
    position = tensor.end;
  }
  REDRAFTER_REQUIRE(position == data_bytes, "ERR_MODEL_FORMAT", quote_path(path),
                    ": the tensors end at byte ", position, " of the data section, but it has ", data_bytes,
                    " bytes (something was appended to the file?)");
}

}  // namespace

uint64_t parse_safetensors_length(const uint8_t (&first)[8], uint64_t file_bytes, const std::string& path) {
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | first[i];
  REDRAFTER_REQUIRE(length <= kMaxHeaderBytes, "ERR_MODEL_FORMAT", quote_path(path),
                    ": the header length is ", length, " bytes, more than the ", kMaxHeaderBytes, " allowed");
  REDRAFTER_REQUIRE(length + 8 <= file_bytes, "ERR_MODEL_FORMAT", quote_path(path), ": the header length is ",
                    length, " bytes, but the file has only ", file_bytes, " bytes (truncated?)");
  return length;
}

std::vector<SafetensorsTensor> parse_safetensors_header(const uint8_t* header, uint64_t header_bytes,
                                                        uint64_t file_bytes, const std::string& path) {
  REDRAFTER_REQUIRE(header_bytes <= kMaxHeaderBytes && file_bytes >= 8 && file_bytes - 8 >= header_bytes,
                    "ERR_MODEL_FORMAT", quote_path(path), ": a header of ", header_bytes,
                    " bytes does not fit a file of ", file_bytes, " bytes, or is above the limit of ",
                    kMaxHeaderBytes, " bytes");
  const uint64_t data_bytes = file_bytes - 8 - header_bytes;
  const std::string_view text(reinterpret_cast<const char*>(header), static_cast<size_t>(header_bytes));
  const json::Document document = json::parse(text, "ERR_MODEL_FORMAT", quote_path(path) + ": header");
  const Value root = json::root(document);
  REDRAFTER_REQUIRE(root.is(Kind::kObject), "ERR_MODEL_FORMAT", quote_path(path),
                    ": the header must be a JSON object, got ", root.describe());
  const uint32_t others = root.find("__metadata__") ? 1 : 0;
  REDRAFTER_REQUIRE(root.size() - others <= kMaxTensors, "ERR_MODEL_FORMAT", quote_path(path),
                    ": the header lists more than the ", kMaxTensors, " tensors allowed");
  std::vector<SafetensorsTensor> tensors;
  tensors.reserve(root.size());
  for (const Value entry : root) {
    if (entry.key() == "__metadata__") {
      check_metadata(entry, path);
    } else {
      tensors.push_back(parse_tensor(entry, data_bytes, path));
    }
  }
  check_layout(tensors, data_bytes, path);
  return tensors;
}

std::string unusable_dtype_message(const std::string& name, const char* stored) {
  return "tensor " + quote(name) + " has dtype " + stored +
         ", which redrafter cannot use (it reads F32, F16, BF16, I32 and I64, and U8 where a configuration "
         "says what the bytes are)";
}

}  // namespace redrafter
