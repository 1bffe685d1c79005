#include "io/checkpoint_files.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "base/check.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/text.h"

namespace redrafter {
namespace {

using json::Kind;
using json::Value;

constexpr uint64_t kMaxIndexBytes = uint64_t{16} << 20;
constexpr size_t kMaxShards = 1000;

// Why a shard name is not a plain file name, or null. Both separators and the colon count on every system, so
// that an index means the same everywhere.
const char* shard_name_defect(std::string_view name) {
  const std::string_view suffix = ".safetensors";
  if (name.empty()) return "it is empty";
  if (name.size() > 255) return "it is longer than 255 bytes";
  if (name.find_first_of("/\\:") != std::string_view::npos) return "it contains '/', '\\' or ':'";
  for (const char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return "it contains a control character";
  }
  if (name.size() <= suffix.size() || name.substr(name.size() - suffix.size()) != suffix) {
    return "it does not end in .safetensors";
  }
  return nullptr;
}

void parse_index(const std::string& text, const std::string& directory, CheckpointFiles& files) {
  const std::string where = quote_path(files.index_path);
  const json::Document document = json::parse(text, "ERR_MODEL_FORMAT", where);
  const std::optional<Value> map = json::root(document).find("weight_map");
  REDRAFTER_REQUIRE(map && map->is(Kind::kObject), "ERR_MODEL_FORMAT", where,
                    ": expected an object with the key \"weight_map\", itself an object");
  REDRAFTER_REQUIRE(map->size() > 0 && map->size() <= kMaxTensors, "ERR_MODEL_FORMAT", where,
                    ": \"weight_map\" lists ", map->size(), " tensors, expected 1 to ", kMaxTensors);
  std::map<std::string_view, int> shards;
  for (const Value entry : *map) {
    REDRAFTER_REQUIRE(entry.is(Kind::kString), "ERR_MODEL_FORMAT", where, ": \"weight_map\" entry ",
                      quote(entry.key()), " must be a file name, got ", entry.describe());
    if (!shards.emplace(entry.text(), 0).second) continue;
    const char* defect = shard_name_defect(entry.text());
    REDRAFTER_REQUIRE(defect == nullptr, "ERR_MODEL_FORMAT", where, ": \"weight_map\" maps ",
                      quote(entry.key()), " to ", quote(entry.text()),
                      ", which is not a plain file name: ", defect);
  }
  REDRAFTER_REQUIRE(shards.size() <= kMaxShards, "ERR_MODEL_FORMAT", where, ": \"weight_map\" names ",
                    shards.size(), " shards, at most ", kMaxShards, " are supported");
  for (auto& [name, number] : shards) {
    number = static_cast<int>(files.paths.size());
    files.paths.push_back(join_path(directory, std::string(name)));
  }
  files.weights.reserve(map->size());
  for (const Value entry : *map) files.weights.emplace_back(entry.key(), shards.at(entry.text()));
  std::sort(files.weights.begin(), files.weights.end());
}

// Nothing usable is there; says so in terms of what is.
[[noreturn]] void fail_without_weights(const std::string& directory) {
  const char* other = "";
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth"}) {
    if (path_kind(join_path(directory, name)) != PathKind::kMissing) {
      other = " (there are PyTorch pickle files, which are never loaded: convert them to safetensors)";
    }
  }
  fail("ERR_FILE", quote_path(directory),
       ": found neither model.safetensors nor model.safetensors.index.json", other);
}

}  // namespace

CheckpointFiles find_checkpoint_files(const std::string& directory) {
  require_directory(directory);
  CheckpointFiles files;
  const std::string single = join_path(directory, "model.safetensors");
  if (path_kind(single) != PathKind::kMissing) {
    files.paths.push_back(single);
    return files;
  }
  files.index_path = join_path(directory, "model.safetensors.index.json");
  if (path_kind(files.index_path) == PathKind::kMissing) fail_without_weights(directory);
  const std::string text = read_text_file(files.index_path, kMaxIndexBytes, "ERR_MODEL_FORMAT");
  parse_index(text, directory, files);
  return files;
}

std::string other_format(const uint8_t (&first)[8]) {
  // A header length within the limit leaves the upper bytes zero; no other format starts like that.
  if (first[3] <= 1 && first[4] == 0 && first[5] == 0 && first[6] == 0 && first[7] == 0) return "";
  const std::string_view bytes(reinterpret_cast<const char*>(first), sizeof first);
  const std::pair<std::string_view, const char*> formats[] = {
      {"GGUF", "a GGUF file (llama.cpp)"},
      {"PK\x03\x04", "a ZIP archive (perhaps PyTorch's format)"},
      {"\x80\x02", "a Python pickle, which is never loaded"},
      {"\x80\x03", "a Python pickle, which is never loaded"},
      {"\x80\x04", "a Python pickle, which is never loaded"},
      {"\x80\x05", "a Python pickle, which is never loaded"},
      {"\x89HDF", "an HDF5 file"},
      {"\x93NUMPY", "a NumPy array"},
      {"\x1f\x8b", "a gzip archive"},
      {"version ", "a Git LFS pointer: the file itself was not downloaded"},
  };
  for (const auto& [magic, name] : formats) {
    if (bytes.substr(0, magic.size()) == magic) return name;
  }
  const bool printable = std::all_of(bytes.begin(), bytes.end(), [](char c) {
    return (c >= 0x20 && c < 0x7f) || c == '\n' || c == '\r' || c == '\t';
  });
  return printable ? "a text file, perhaps an error page saved by a download" : "";
}

}  // namespace redrafter
