#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "io/file.h"
#include "io/file_system.h"
#include "io/text.h"

namespace redrafter {
namespace {

// Systems limit one write to a little under 2 GiB.
constexpr uint64_t kMostPerWrite = uint64_t{1} << 30;

std::atomic<int64_t> writes_until_failure{0};

bool injected_failure() {
  return writes_until_failure.load(std::memory_order_relaxed) > 0 && writes_until_failure.fetch_sub(1) == 1;
}

[[noreturn]] void fail_write(const std::string& path, const std::string& reason) {
  fail("ERR_FILE", "cannot write ", quote_path(path), ": ", reason);
}

}  // namespace

void fail_write_for_tests(int64_t n) { writes_until_failure = n; }

FileWriter::FileWriter(std::string path) : path_(std::move(path)) {
  const PathKind kind = path_kind(path_);
  if (kind == PathKind::kDirectory) fail_write(path_, "it is a directory");
  if (kind == PathKind::kOther) fail_write(path_, "it is not a regular file (a pipe, socket or device?)");
  system::Status status;
  do {
    // No other process or thread is likely to choose this name; if one has, create() fails and the next is
    // tried.
    const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
    temporary_ = path_ + "." + std::to_string(now) + ".tmp";
    status = system::create(temporary_, &handle_);
  } while (status.exists_already());
  if (!status.ok()) fail_write(path_, status.text());
}

FileWriter::~FileWriter() {
  system::close(handle_);
  if (!temporary_.empty()) system::remove(temporary_);
}

void FileWriter::write(const void* from, uint64_t bytes) {
  const auto* next = static_cast<const uint8_t*>(from);
  while (bytes > 0) {
    uint64_t put = 0;
    const system::Status status = injected_failure()
                                      ? system::input_output_error()
                                      : system::write(handle_, next, std::min(bytes, kMostPerWrite), &put);
    if (!status.ok()) fail_write(path_, status.text());
    next += put;
    bytes -= put;
  }
}

void FileWriter::commit() {
  // Before the rename, or a crash of the machine could leave an empty file in the place of a good one.
  system::Status status = system::sync(handle_);
  system::close(std::exchange(handle_, -1));
  if (status.ok()) status = system::rename(temporary_, path_);
  if (!status.ok()) fail_write(path_, status.text());
  temporary_.clear();
}

}  // namespace redrafter
