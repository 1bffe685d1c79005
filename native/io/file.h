// Reading of regular files at given offsets. Nothing is mapped: a file that shrinks, grows or is replaced
// while in use gives ERR_FILE, where a mapping would give a signal.
#pragma once

#include <cstdint>
#include <string>

namespace redrafter {

// What identifies a file and its state. Two equal stamps mean: the same file, and nobody wrote to it.
struct FileStamp {
  uint64_t device = 0;
  uint64_t file = 0;
  uint64_t bytes = 0;
  uint64_t modified_ns = 0;
  bool operator==(const FileStamp&) const = default;
};

class File {
 public:
  // Throws ERR_FILE when the path cannot be opened or is not a regular file. Symbolic links are followed.
  explicit File(const std::string& path);
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  const std::string& path() const { return path_; }
  uint64_t bytes() const { return stamp_.bytes; }

  // Reads exactly `bytes` bytes at `offset`. Throws ERR_FILE when the system reports an error, when there are
  // fewer bytes, and when the file or the path is no longer what it was at open.
  void read(uint64_t offset, void* to, uint64_t bytes) const;

 private:
  void check_unchanged() const;

  std::string path_;
  FileStamp stamp_;
  intptr_t handle_ = -1;  // file descriptor or HANDLE
};

// Writes a file beside its destination and puts it in its place when it is complete: nobody ever reads half a
// file, and a failure leaves what was there before. Readable by its owner alone.
class FileWriter {
 public:
  // Throws ERR_FILE when no file can be created there, or the path leads to something that is not a file.
  explicit FileWriter(std::string path);
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  ~FileWriter();  // without commit(): as if nothing had been written

  // Both throw ERR_FILE.
  void write(const void* from, uint64_t bytes);
  void commit();

 private:
  std::string path_, temporary_;
  intptr_t handle_ = -1;
};

enum class PathKind : uint8_t { kMissing, kRegular, kDirectory, kOther };

// What the path leads to, links followed. kMissing only when nothing is there; throws ERR_FILE when the
// system will not say.
PathKind path_kind(const std::string& path);

std::string join_path(const std::string& directory, const std::string& name);

// Throws ERR_FILE unless the path leads to a directory.
void require_directory(const std::string& path);

// A whole file. Throws ERR_FILE, or `code` when it has more than `limit` bytes.
std::string read_text_file(const std::string& path, uint64_t limit, const char* code);

// For tests: the n-th system read from now on (1 is the next) fails as if the disk had an error; 0 means
// none.
void fail_read_for_tests(int64_t n);
void fail_write_for_tests(int64_t n);

}  // namespace redrafter
