#include "io/file_system.h"

#if defined(_WIN32)

#include <windows.h>

#include <filesystem>

namespace redrafter::system {

bool Status::is_missing() const {
  return error_ == ERROR_FILE_NOT_FOUND || error_ == ERROR_PATH_NOT_FOUND || error_ == ERROR_INVALID_NAME;
}
bool Status::exists_already() const { return error_ == ERROR_FILE_EXISTS; }
Status input_output_error() { return Status(ERROR_IO_DEVICE); }

// Not std::system_category, whose messages come in the code page of the system where UTF-8 is expected.
std::string Status::text() const {
  wchar_t text[512];
  const DWORD flags = FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS;
  DWORD length = FormatMessageW(flags, nullptr, static_cast<DWORD>(error_), 0, text, 512, nullptr);
  while (length > 0 && (text[length - 1] <= L' ' || text[length - 1] == L'.')) --length;  // ".\r\n"
  char utf8[3 * 512];
  const int bytes = WideCharToMultiByte(CP_UTF8, 0, text, static_cast<int>(length), utf8,
                                        static_cast<int>(sizeof utf8), nullptr, nullptr);
  return bytes > 0 ? std::string(utf8, static_cast<size_t>(bytes)) : "error " + std::to_string(error_);
}

static Status last_error() { return Status(GetLastError()); }

static std::wstring wide(const std::string& path) {
  return std::filesystem::path(std::u8string(path.begin(), path.end())).wstring();
}

// Sharing everything lets others replace or cut the file; reads notice.
static HANDLE open_handle(const std::string& path, DWORD access) {
  return CreateFileW(wide(path).c_str(), access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                     nullptr, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, nullptr);
}

Status open(const std::string& path, intptr_t* handle) {
  const HANDLE opened = open_handle(path, GENERIC_READ);
  if (opened == INVALID_HANDLE_VALUE) return last_error();
  *handle = reinterpret_cast<intptr_t>(opened);
  return Status();
}

void close(intptr_t handle) {
  if (handle != -1) CloseHandle(reinterpret_cast<HANDLE>(handle));
}

Status stamp(intptr_t handle, PathKind* kind, FileStamp* stamp) {
  const HANDLE file = reinterpret_cast<HANDLE>(handle);
  if (GetFileType(file) != FILE_TYPE_DISK) {
    *kind = PathKind::kOther;
    return Status();
  }
  BY_HANDLE_FILE_INFORMATION info;
  if (!GetFileInformationByHandle(file, &info)) return last_error();
  const auto join = [](DWORD high, DWORD low) { return uint64_t{high} << 32 | low; };
  *kind = (info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0 ? PathKind::kDirectory : PathKind::kRegular;
  stamp->device = info.dwVolumeSerialNumber;
  stamp->file = join(info.nFileIndexHigh, info.nFileIndexLow);
  stamp->bytes = join(info.nFileSizeHigh, info.nFileSizeLow);
  // In units of 100 ns.
  stamp->modified_ns = join(info.ftLastWriteTime.dwHighDateTime, info.ftLastWriteTime.dwLowDateTime) * 100;
  return Status();
}

Status stamp(const std::string& path, PathKind* kind, FileStamp* result) {
  const HANDLE file = open_handle(path, FILE_READ_ATTRIBUTES);
  if (file == INVALID_HANDLE_VALUE) return last_error();
  const Status status = stamp(reinterpret_cast<intptr_t>(file), kind, result);
  CloseHandle(file);
  return status;
}

Status read_at(intptr_t handle, uint64_t offset, void* to, uint64_t bytes, uint64_t* got) {
  OVERLAPPED place = {};
  place.Offset = static_cast<DWORD>(offset);
  place.OffsetHigh = static_cast<DWORD>(offset >> 32);
  DWORD count = 0;
  const BOOL done = ReadFile(reinterpret_cast<HANDLE>(handle), to, static_cast<DWORD>(bytes), &count, &place);
  *got = count;
  return done || GetLastError() == ERROR_HANDLE_EOF ? Status() : last_error();
}

Status create(const std::string& path, intptr_t* handle) {
  const HANDLE created =
      CreateFileW(wide(path).c_str(), GENERIC_WRITE, 0, nullptr, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, nullptr);
  if (created == INVALID_HANDLE_VALUE) return last_error();
  *handle = reinterpret_cast<intptr_t>(created);
  return Status();
}

Status write(intptr_t handle, const void* from, uint64_t bytes, uint64_t* put) {
  DWORD count = 0;
  const BOOL done =
      WriteFile(reinterpret_cast<HANDLE>(handle), from, static_cast<DWORD>(bytes), &count, nullptr);
  *put = count;
  return done ? Status() : last_error();
}

Status sync(intptr_t handle) {
  return FlushFileBuffers(reinterpret_cast<HANDLE>(handle)) ? Status() : last_error();
}

Status rename(const std::string& from, const std::string& to) {
  return MoveFileExW(wide(from).c_str(), wide(to).c_str(), MOVEFILE_REPLACE_EXISTING) ? Status()
                                                                                      : last_error();
}

void remove(const std::string& path) { DeleteFileW(wide(path).c_str()); }

}  // namespace redrafter::system

#else

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

namespace redrafter::system {

bool Status::is_missing() const { return error_ == ENOENT || error_ == ENOTDIR; }
std::string Status::text() const { return std::generic_category().message(static_cast<int>(error_)); }
bool Status::exists_already() const { return error_ == EEXIST; }
Status input_output_error() { return Status(EIO); }

Status open(const std::string& path, intptr_t* handle) {
  // O_NONBLOCK: should the path have become a pipe since it was looked at, open must not wait for a writer.
  const int opened = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (opened < 0) return Status(errno);
  *handle = opened;
  return Status();
}

void close(intptr_t handle) {
  if (handle != -1) ::close(static_cast<int>(handle));
}

static void describe(const struct stat& info, PathKind* kind, FileStamp* stamp) {
  *kind = S_ISREG(info.st_mode)   ? PathKind::kRegular
          : S_ISDIR(info.st_mode) ? PathKind::kDirectory
                                  : PathKind::kOther;
  stamp->device = static_cast<uint64_t>(info.st_dev);
  stamp->file = static_cast<uint64_t>(info.st_ino);
  stamp->bytes = static_cast<uint64_t>(info.st_size);
#if defined(__APPLE__)
  const struct timespec& modified = info.st_mtimespec;
#else
  const struct timespec& modified = info.st_mtim;
#endif
  // Only compared, so it may wrap around for a file from the far future.
  stamp->modified_ns =
      static_cast<uint64_t>(modified.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(modified.tv_nsec);
}

Status stamp(intptr_t handle, PathKind* kind, FileStamp* stamp) {
  struct stat info;
  if (::fstat(static_cast<int>(handle), &info) != 0) return Status(errno);
  describe(info, kind, stamp);
  return Status();
}

Status stamp(const std::string& path, PathKind* kind, FileStamp* stamp) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return Status(errno);
  describe(info, kind, stamp);
  return Status();
}

Status read_at(intptr_t handle, uint64_t offset, void* to, uint64_t bytes, uint64_t* got) {
  ssize_t count;
  do {
    count = ::pread(static_cast<int>(handle), to, static_cast<size_t>(bytes), static_cast<off_t>(offset));
  } while (count < 0 && errno == EINTR);
  if (count < 0) return Status(errno);
  *got = static_cast<uint64_t>(count);
  return Status();
}

Status create(const std::string& path, intptr_t* handle) {
  const int created = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (created < 0) return Status(errno);
  *handle = created;
  return Status();
}

Status write(intptr_t handle, const void* from, uint64_t bytes, uint64_t* put) {
  ssize_t count;
  do {
    count = ::write(static_cast<int>(handle), from, static_cast<size_t>(bytes));
  } while (count < 0 && errno == EINTR);
  if (count < 0) return Status(errno);
  *put = static_cast<uint64_t>(count);
  return Status();
}

Status sync(intptr_t handle) { return ::fsync(static_cast<int>(handle)) == 0 ? Status() : Status(errno); }

Status rename(const std::string& from, const std::string& to) {
  return std::rename(from.c_str(), to.c_str()) == 0 ? Status() : Status(errno);
}

void remove(const std::string& path) { ::unlink(path.c_str()); }

}  // namespace redrafter::system

#endif
