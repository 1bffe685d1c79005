#include "io/file.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/check.h"
#include "io/file_system.h"
#include "io/text.h"

namespace redrafter {
namespace {

// Systems limit one read to a little under 2 GiB.
constexpr uint64_t kMostPerRead = uint64_t{1} << 30;

std::atomic<int64_t> reads_until_failure{0};

bool injected_failure() {
  return reads_until_failure.load(std::memory_order_relaxed) > 0 && reads_until_failure.fetch_sub(1) == 1;
}

[[noreturn]] void fail_file(const char* what, const std::string& path, const std::string& reason) {
  fail("ERR_FILE", what, " ", quote_path(path), ": ", reason);
}

// C interfaces would silently stop at the NUL and open another file.
void require_no_nul(const std::string& path) {
  if (path.find('\0') != std::string::npos)
    fail_file("cannot open", path, "the path contains a NUL character");
}

const char* kind_name(PathKind kind) {
  return kind == PathKind::kDirectory ? "it is a directory, not a file"
                                      : "it is not a regular file (a pipe, socket or device?)";
}

}  // namespace

void fail_read_for_tests(int64_t n) { reads_until_failure = n; }

File::File(const std::string& path) : path_(path) {
  // The kind is looked at before opening, because opening a device can have effects, and again after it.
  const PathKind kind = path_kind(path);
  if (kind == PathKind::kMissing) fail_file("cannot open", path, "no such file");
  if (kind != PathKind::kRegular) fail_file("cannot open", path, kind_name(kind));
  system::Status status = system::open(path, &handle_);
  PathKind opened = PathKind::kOther;
  if (status.ok()) status = system::stamp(handle_, &opened, &stamp_);
  if (status.ok() && opened == PathKind::kRegular) return;
  system::close(std::exchange(handle_, -1));
  fail_file("cannot open", path, status.ok() ? kind_name(opened) : status.text());
}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)), stamp_(other.stamp_), handle_(std::exchange(other.handle_, -1)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(stamp_, other.stamp_);
  std::swap(handle_, other.handle_);
  return *this;
}

File::~File() { system::close(handle_); }

void File::read(uint64_t offset, void* to, uint64_t bytes) const {
  auto* out = static_cast<uint8_t*>(to);
  uint64_t done = 0;
  while (done < bytes) {
    uint64_t got = 0;
    const uint64_t want = std::min(bytes - done, kMostPerRead);
    const system::Status status = injected_failure()
                                      ? system::input_output_error()
                                      : system::read_at(handle_, offset + done, out + done, want, &got);
    if (!status.ok()) fail_file("cannot read", path_, status.text());
    if (got == 0) {
      check_unchanged();
      fail("ERR_FILE", "cannot read ", quote_path(path_), ": the file ends after ", offset + done,
           " bytes, expected ", offset + bytes);
    }
    done += got;
  }
  // After the read, so that bytes written during it are noticed too.
  check_unchanged();
}

// The open handle must be as it was, and the path must still lead to it: a model replaced by renaming is an
// error as well, because the next file of the same model would come from the new one.
void File::check_unchanged() const {
  FileStamp now;
  PathKind kind = PathKind::kOther;
  system::Status status = system::stamp(handle_, &kind, &now);
  if (!status.ok()) fail_file("cannot read", path_, status.text());
  if (!(now == stamp_)) {
    fail("ERR_FILE", "cannot read ", quote_path(path_), ": the file changed while in use (", stamp_.bytes,
         " bytes when opened, ", now.bytes, " bytes now)");
  }
  status = system::stamp(path_, &kind, &now);
  if (!status.ok()) fail_file("cannot read", path_, "it was removed while in use: " + status.text());
  if (!(now == stamp_)) fail_file("cannot read", path_, "it was replaced by another file while in use");
}

PathKind path_kind(const std::string& path) {
  require_no_nul(path);
  PathKind kind = PathKind::kOther;
  FileStamp unused;
  const system::Status status = system::stamp(path, &kind, &unused);
  if (status.is_missing()) return PathKind::kMissing;
  if (!status.ok()) fail_file("cannot open", path, status.text());
  return kind;
}

std::string join_path(const std::string& directory, const std::string& name) {
  if (directory.empty()) return name;
  const char last = directory.back();
  return last == '/' || last == system::kSeparator ? directory + name : directory + system::kSeparator + name;
}

void require_directory(const std::string& path) {
  const PathKind kind = path.empty() ? PathKind::kMissing : path_kind(path);
  if (kind == PathKind::kMissing) fail_file("cannot open", path, "no such directory");
  if (kind != PathKind::kDirectory) fail_file("cannot open", path, "expected a directory, this is a file");
}

std::string read_text_file(const std::string& path, uint64_t limit, const char* code) {
  const File file(path);
  REDRAFTER_REQUIRE(file.bytes() <= limit, code, quote_path(path), ": the file has ", file.bytes(),
                    " bytes, more than the ", limit, " allowed");
  std::string text(static_cast<size_t>(file.bytes()), '\0');
  file.read(0, text.data(), text.size());
  return text;
}

}  // namespace redrafter
