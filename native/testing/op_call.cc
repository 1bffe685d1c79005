#include "testing/op_call.h"

#include <algorithm>
#include <optional>

#include "base/quant.h"
#include "testing/levels.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace redrafter::testing {
namespace {

constexpr uint32_t kPoison = 0xFFC5C5C5u;  // a quiet NaN as fp32, a large negative number as int32
constexpr size_t kGuardBytes = 128, kWorkspaceGuardBytes = 1024;

// With AddressSanitizer a guard word may not even be read while the op runs.
void close_guards(char* memory, size_t bytes, size_t guard) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(memory, guard);
  ASAN_POISON_MEMORY_REGION(memory + guard + bytes, guard);
#else
  (void)memory, (void)bytes, (void)guard;
#endif
}

void open_guards(char* memory, size_t bytes, size_t guard) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes + 2 * guard);
#else
  (void)memory, (void)bytes, (void)guard;
#endif
}

bool is_poison(const uint8_t* bytes, size_t at) {
  return bytes[at] == static_cast<uint8_t>(kPoison >> (at % 4 * 8));
}

std::optional<int64_t> workspace_limit;

std::string level_named(const Napi::Value& level) {
  REDRAFTER_REQUIRE(level.IsString(), "ERR_INVALID_ARGUMENT", "level is not a string");
  return level.As<Napi::String>().Utf8Value();
}

// On the CPU so many threads; in the emulator the seed of the order in which threads run.
int thread_count(const std::string& level, const Napi::Value& threads) {
  REDRAFTER_REQUIRE(threads.IsNumber(), "ERR_INVALID_ARGUMENT", "threads is not a number");
  const int64_t count = threads.As<Napi::Number>().Int64Value();
  REDRAFTER_REQUIRE(count >= 1 && count <= 64, "ERR_INVALID_ARGUMENT", "threads is not in 1..64");
  if (is_emulated(level)) set_order(static_cast<uint64_t>(count));
  return level.rfind("cuda", 0) == 0 ? 1 : static_cast<int>(count);
}

}  // namespace

DType dtype_of(const std::string& name) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  fail("ERR_INVALID_ARGUMENT", "unknown dtype ", name);
}

Fields::Fields(OpCall& call, const Napi::Value& value) : call_(call) {
  REDRAFTER_REQUIRE(value.IsObject(), "ERR_INVALID_ARGUMENT", "not an object");
  object_ = value.As<Napi::Object>();
}

bool Fields::has(const char* key) const {
  const Napi::Value value = object_.Get(key);
  return !value.IsUndefined() && !value.IsNull();
}

Napi::Value Fields::get(const char* key) const {
  REDRAFTER_REQUIRE(has(key), "ERR_INVALID_ARGUMENT", key, " is missing");
  return object_.Get(key);
}

double Fields::number(const char* key) const {
  const Napi::Value value = get(key);
  REDRAFTER_REQUIRE(value.IsNumber(), "ERR_INVALID_ARGUMENT", key, " is not a number");
  return value.As<Napi::Number>().DoubleValue();
}

int64_t Fields::integer(const char* key) const {
  const double value = number(key);
  REDRAFTER_REQUIRE(
      value >= 0 && value < 2147483648.0 && value == static_cast<double>(static_cast<int64_t>(value)),
      "ERR_INVALID_ARGUMENT", key, " is not an integer in 0..2^31-1");
  return static_cast<int64_t>(value);
}

bool Fields::flag(const char* key) const { return has(key) && get(key).ToBoolean(); }

std::string Fields::text(const char* key) const {
  const Napi::Value value = get(key);
  REDRAFTER_REQUIRE(value.IsString(), "ERR_INVALID_ARGUMENT", key, " is not a string");
  return value.As<Napi::String>().Utf8Value();
}

int32_t* Fields::indices(const char* key, int64_t count, int64_t low, int64_t high) const {
  const auto from = array<int32_t>(key);
  for (size_t i = 0; i < from.ElementLength(); ++i) {
    const int64_t index = from.Data()[i];
    REDRAFTER_REQUIRE(index >= low && index < high, "ERR_INVALID_ARGUMENT", key, "[", i, "] = ", index,
                      " is not in ", low, "..", high - 1);
  }
  return in<int32_t>(key, count);
}

Matrix Fields::matrix(const char* key) const {
  const Fields fields = object(key);
  Matrix w;
  w.dtype = dtype_of(fields.text("dtype"));
  w.rows = fields.integer("rows");
  w.cols = fields.integer("cols");
  const bool single = w.dtype == DType::kF32;
  const int64_t count = w.rows * dtype_row_bytes(w.dtype, w.cols) / (single ? 4 : 2);
  REDRAFTER_REQUIRE((single ? fields.length<float>("source") : fields.length<uint16_t>("source")) == count,
                    "ERR_INVALID_ARGUMENT", key, " has the wrong size");
  const void* source = single ? static_cast<const void*>(fields.array<float>("source").Data())
                              : static_cast<const void*>(fields.array<uint16_t>("source").Data());
  w.data = call_.allocate(static_cast<size_t>(call_.backend().matrix_bytes(w.rows, w.cols, w.dtype)));
  const int64_t step = fields.has("chunk") ? std::max<int64_t>(fields.integer("chunk"), 1) : w.rows;
  for (int64_t row = 0; row < w.rows; row += step) {
    const char* from = static_cast<const char*>(source) + row * dtype_row_bytes(w.dtype, w.cols);
    call_.pack({from, row, std::min(step, w.rows - row), w});
  }
  return w;
}

OpCall::OpCall(const Napi::CallbackInfo& info)
    : env_(info.Env()),
      level_(level_named(info[0])),
      backend_(level_backend(level_)),
      pool_(thread_count(level_, info[1])),
      stream_(backend_, &pool_),
      guard_bytes_(is_emulated(level_) ? 0 : kGuardBytes),
      params_(*this, info[2]) {
  check_stream();
  if (workspace_limit && *workspace_limit < stream().workspace_bytes) limit_workspace(*workspace_limit);
}

// The bytes of the workspace that an op must leave alone begin with guard words, too.
void OpCall::limit_workspace(int64_t bytes) {
  Stream& s = stream();
  workspace_bytes_ = s.workspace_bytes;
  s.workspace_bytes = bytes;
  const int64_t guarded = std::min<int64_t>(kWorkspaceGuardBytes, workspace_bytes_ - bytes);
  const std::vector<uint32_t> poison(static_cast<size_t>(guarded) / 4, kPoison);
  upload(static_cast<char*>(s.workspace) + bytes, poison.data(),
         std::min<size_t>(kWorkspaceGuardBytes, poison.size() * 4));
  if (is_emulated(level_)) {
    forbid(static_cast<char*>(s.workspace) + bytes, static_cast<size_t>(workspace_bytes_ - bytes));
  }
}

void OpCall::pack(const PackParams& p) {
  if (workspace_bytes_ == 0 || stream().workspace_bytes >= kPackWorkspaceBytes) {
    backend_.matmul_pack(p, stream());
    return backend_.wait(stream());
  }
  BackendStream other(backend_, &pool_);
  backend_.matmul_pack(p, other.get());
  backend_.wait(other.get());
  REDRAFTER_REQUIRE(other.get().error == nullptr, "ERR_BACKEND", "matmul_pack: ", other.get().error);
}

void OpCall::check_workspace() {
  const Stream& s = stream();
  if (workspace_bytes_ <= s.workspace_bytes) return;
  std::vector<uint8_t> bytes(std::min<size_t>(
      kWorkspaceGuardBytes, static_cast<size_t>(workspace_bytes_ - s.workspace_bytes) / 4 * 4));
  download(bytes.data(), static_cast<char*>(s.workspace) + s.workspace_bytes, bytes.size());
  for (size_t i = 0; i < bytes.size(); ++i) {
    REDRAFTER_REQUIRE(is_poison(bytes.data(), i), "ERR_INTERNAL", "an op wrote behind its workspace of ",
                      s.workspace_bytes, " bytes");
  }
}

void OpCall::check_counters() {
  std::vector<uint32_t> counters(static_cast<size_t>(stream().counter_count));
  download(counters.data(), stream().counters, counters.size() * sizeof(uint32_t));
  const auto count = counters.size() - static_cast<size_t>(std::count(counters.begin(), counters.end(), 0u));
  REDRAFTER_REQUIRE(count == 0, "ERR_INTERNAL", "an op left ", count, " counters that are not zero");
}

void OpCall::check_stream() {
  const Stream& s = stream();
  REDRAFTER_REQUIRE(s.error == nullptr, "ERR_BACKEND", s.failed == nullptr ? "" : s.failed, ": ", s.error);
}

void* OpCall::allocate(size_t bytes) {
  Region region{DeviceBuffer(backend_, bytes + 2 * guard_bytes_), bytes};
  REDRAFTER_REQUIRE(region.memory.bytes() == 0 || region.memory.as<char>() != nullptr, "ERR_OOM",
                    "cannot allocate ", bytes, " bytes on ", level_);
  const std::vector<uint32_t> poison((region.memory.bytes() + 3) / 4, kPoison);
  upload(region.memory.as<char>(), poison.data(), region.memory.bytes());
  close_guards(region.memory.as<char>(), bytes, guard_bytes_);
  regions_.push_back(std::move(region));
  return regions_.back().memory.as<char>() + guard_bytes_;
}

OpCall::~OpCall() {
  for (const Region& region : regions_) open_guards(region.memory.as<char>(), region.bytes, guard_bytes_);
}

size_t OpCall::size_of(const void* data) const {
  for (const Region& region : regions_) {
    if (region.memory.as<char>() + guard_bytes_ == data) return region.bytes;
  }
  fail("ERR_INVALID_ARGUMENT", "not a buffer of this call");
}

void set_workspace_limit(std::optional<int64_t> bytes) { workspace_limit = bytes; }

void OpCall::check_guards() {
  check_workspace();
  check_counters();
  if (guard_bytes_ == 0) return;
  std::vector<uint8_t> bytes;
  for (const Region& region : regions_) {
    open_guards(region.memory.as<char>(), region.bytes, guard_bytes_);
    bytes.resize(region.memory.bytes());
    download(bytes.data(), region.memory.as<char>(), bytes.size());
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (i >= guard_bytes_ && i < guard_bytes_ + region.bytes) continue;
      REDRAFTER_REQUIRE(is_poison(bytes.data(), i), "ERR_INTERNAL", "a guard word was overwritten ",
                        i < guard_bytes_ ? "before" : "after", " a buffer of ", region.bytes, " bytes");
    }
  }
}

}  // namespace redrafter::testing
