#include "io/checkpoint.h"

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

#include "base/check.h"
#include "io/checkpoint_files.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "io/text.h"

namespace redrafter {

struct Checkpoint::State {
  // A tensor that is in the files, but with a dtype outside DType.
  struct Unusable {
    std::string name;
    const char* stored;
  };

  std::vector<File> shards;
  std::vector<std::string> paths;
  std::vector<TensorEntry> tensors;  // by name, like `unusable`
  std::vector<Unusable> unusable;
  uint64_t total_bytes = 0;

  void add(SafetensorsTensor tensor, int shard, uint64_t data_begin);
};

void Checkpoint::State::add(SafetensorsTensor tensor, int shard, uint64_t data_begin) {
  if (!tensor.dtype) {
    unusable.push_back({std::move(tensor.name), tensor.stored});
    return;
  }
  const uint64_t bytes = tensor.end - tensor.begin;
  REDRAFTER_REQUIRE(bytes <= std::numeric_limits<uint64_t>::max() - total_bytes, "ERR_MODEL_FORMAT",
                    quote_path(shards[static_cast<size_t>(shard)].path()),
                    ": with this shard, the tensors have more bytes than 64 bits can count");
  total_bytes += bytes;
  tensors.push_back({std::move(tensor.name), *tensor.dtype, std::move(tensor.shape), bytes, shard,
                     data_begin + tensor.begin});
}

namespace {

// Every tensor of every shard with the number of its shard, by name.
using Located = std::vector<std::pair<std::string, int>>;

std::vector<SafetensorsTensor> read_header(const File& file, uint64_t* data_begin) {
  uint8_t first[8] = {};
  const std::string& path = file.path();
  file.read(0, first, std::min<uint64_t>(file.bytes(), sizeof first));
  const std::string other = other_format(first);
  REDRAFTER_REQUIRE(other.empty(), "ERR_MODEL_FORMAT", quote_path(path),
                    ": not a safetensors file, it looks like ", other);
  REDRAFTER_REQUIRE(file.bytes() >= sizeof first, "ERR_MODEL_FORMAT", quote_path(path),
                    ": the file has only ", file.bytes(), " bytes, a safetensors file has at least ",
                    sizeof first);
  const uint64_t length = parse_safetensors_length(first, file.bytes(), path);
  std::vector<uint8_t> header(static_cast<size_t>(length));
  file.read(sizeof first, header.data(), length);
  *data_begin = sizeof first + length;
  return parse_safetensors_header(header.data(), length, file.bytes(), path);
}

template <typename Entry>
void sort_by_name(std::vector<Entry>& entries) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
}

template <typename Entry>
const Entry* find_by_name(const std::vector<Entry>& entries, const std::string& name) {
  const auto at =
      std::lower_bound(entries.begin(), entries.end(), name,
                       [](const Entry& entry, const std::string& key) { return entry.name < key; });
  return at != entries.end() && at->name == name ? &*at : nullptr;
}

// One header cannot repeat a name, so a name that occurs twice is in two shards.
void check_distinct(const Located& located, const std::vector<std::string>& paths) {
  for (size_t i = 1; i < located.size(); ++i) {
    REDRAFTER_REQUIRE(located[i].first != located[i - 1].first, "ERR_MODEL_FORMAT", "tensor ",
                      quote(located[i].first),
                      " is in two shards: ", quote_path(paths[located[i - 1].second]), " and ",
                      quote_path(paths[located[i].second]));
  }
}

// The index and the shards must tell the same story: the same names, each in the shard the index says.
void check_index(const CheckpointFiles& files, const Located& located) {
  auto found = located.begin();
  const auto require_nothing_before = [&](const std::string* name) {
    const bool extra = found != located.end() && (name == nullptr || found->first < *name);
    REDRAFTER_REQUIRE(!extra, "ERR_MODEL_FORMAT", quote_path(files.paths[found->second]), ": tensor ",
                      quote(found->first), " is not in the \"weight_map\" of ", quote_path(files.index_path));
  };
  for (const auto& [name, shard] : files.weights) {
    require_nothing_before(&name);
    const bool present = found != located.end() && found->first == name;
    REDRAFTER_REQUIRE(
        present && found->second == shard, "ERR_MODEL_FORMAT", quote_path(files.index_path), ": tensor ",
        quote(name), " should be in ", quote_path(files.paths[shard]), ", but ",
        present ? "it is in " + quote_path(files.paths[found->second]) : "no listed shard has it");
    ++found;
  }
  require_nothing_before(nullptr);
}

}  // namespace

Checkpoint Checkpoint::open(const std::string& directory) try {
  auto state = std::make_unique<State>();
  CheckpointFiles files = find_checkpoint_files(directory);
  Located located;
  for (const std::string& path : files.paths) {
    const int shard = static_cast<int>(state->shards.size());
    state->shards.emplace_back(path);
    uint64_t data_begin = 0;
    for (SafetensorsTensor& tensor : read_header(state->shards.back(), &data_begin)) {
      located.emplace_back(tensor.name, shard);
      REDRAFTER_REQUIRE(located.size() <= kMaxTensors, "ERR_MODEL_FORMAT", quote_path(directory),
                        ": the shards hold more than the ", kMaxTensors, " tensors allowed");
      state->add(std::move(tensor), shard, data_begin);
    }
  }
  std::sort(located.begin(), located.end());
  check_distinct(located, files.paths);
  if (!files.index_path.empty()) check_index(files, located);
  sort_by_name(state->tensors);
  sort_by_name(state->unusable);
  state->paths = std::move(files.paths);
  return Checkpoint(std::move(state));
} catch (const std::bad_alloc&) {
  fail("ERR_OOM", "not enough memory to read the tensor headers of ", quote_path(directory));
}

Checkpoint::Checkpoint(std::unique_ptr<State> state) : state_(std::move(state)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

const std::vector<TensorEntry>& Checkpoint::tensors() const { return state_->tensors; }
uint64_t Checkpoint::total_bytes() const { return state_->total_bytes; }
const std::vector<std::string>& Checkpoint::files() const { return state_->paths; }

const TensorEntry* Checkpoint::find(const std::string& name) const {
  const State::Unusable* unusable = find_by_name(state_->unusable, name);
  if (unusable != nullptr) fail("ERR_MODEL_FORMAT", unusable_dtype_message(name, unusable->stored));
  return find_by_name(state_->tensors, name);
}

void Checkpoint::read(const TensorEntry& tensor, uint64_t offset, void* to, uint64_t bytes) const {
  REDRAFTER_CHECK(offset <= tensor.bytes && bytes <= tensor.bytes - offset);
  state_->shards[static_cast<size_t>(tensor.file)].read(tensor.offset + offset, to, bytes);
}

}  // namespace redrafter
