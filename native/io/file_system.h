// The few system calls behind file.h, the same on POSIX and Windows. Only file.cc includes this.
#pragma once

#include <cstdint>
#include <string>

#include "io/file.h"

namespace redrafter::system {

#if defined(_WIN32)
constexpr char kSeparator = '\\';
#else
constexpr char kSeparator = '/';
#endif

// The error number of a call, 0 for success.
class Status {
 public:
  explicit Status(int64_t error = 0) : error_(error) {}
  bool ok() const { return error_ == 0; }
  bool is_missing() const;
  bool exists_already() const;
  std::string text() const;

 private:
  int64_t error_;
};

Status input_output_error();

Status open(const std::string& path, intptr_t* handle);
void close(intptr_t handle);  // -1 is ignored
Status stamp(intptr_t handle, PathKind* kind, FileStamp* stamp);
Status stamp(const std::string& path, PathKind* kind, FileStamp* stamp);
// For writing, readable by its owner alone. Fails when the path exists.
Status create(const std::string& path, intptr_t* handle);
Status write(intptr_t handle, const void* from, uint64_t bytes, uint64_t* put);
Status sync(intptr_t handle);
// Replaces what `to` was.
Status rename(const std::string& from, const std::string& to);
void remove(const std::string& path);
// Reads up to `bytes` bytes; *got = 0 means the end of the file.
Status read_at(intptr_t handle, uint64_t offset, void* to, uint64_t bytes, uint64_t* got);

}  // namespace redrafter::system
