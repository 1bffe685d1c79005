// run_program() on Windows. It has run under Wine, not on Windows yet.
#if defined(_WIN32)

#include <windows.h>

#include <algorithm>
#include <iterator>
#include <sstream>
#include <system_error>
#include <vector>

#include "base/program.h"

namespace redrafter {
namespace {

using Clock = std::chrono::steady_clock;

constexpr DWORD kPollMs = 2;
constexpr DWORD kDeathPatienceMs = 2000;
constexpr DWORD kFirstException = 0xC0000000u;  // exit codes from here on are those of exceptions

std::string last_error() { return std::system_category().message(static_cast<int>(GetLastError())); }

class Handle {
 public:
  explicit Handle(HANDLE handle = nullptr) : handle_(handle) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { close(); }
  HANDLE get() const { return handle_; }
  HANDLE* out() { return &handle_; }
  bool valid() const { return handle_ != nullptr && handle_ != INVALID_HANDLE_VALUE; }
  void close() {
    if (valid()) CloseHandle(handle_);
    handle_ = nullptr;
  }

 private:
  HANDLE handle_;
};

// The handles that a child inherits, and no others.
class Inherited {
 public:
  explicit Inherited(std::vector<HANDLE> handles) : handles_(std::move(handles)) {
    SIZE_T bytes = 0;
    InitializeProcThreadAttributeList(nullptr, 1, 0, &bytes);
    memory_.resize(bytes);
    list_ = reinterpret_cast<LPPROC_THREAD_ATTRIBUTE_LIST>(memory_.data());
    initialized_ = InitializeProcThreadAttributeList(list_, 1, 0, &bytes) != 0;
    complete_ = initialized_ &&
                UpdateProcThreadAttribute(list_, 0, PROC_THREAD_ATTRIBUTE_HANDLE_LIST, handles_.data(),
                                          handles_.size() * sizeof(HANDLE), nullptr, nullptr) != 0;
  }
  Inherited(const Inherited&) = delete;
  Inherited& operator=(const Inherited&) = delete;
  ~Inherited() {
    if (initialized_) DeleteProcThreadAttributeList(list_);
  }
  bool complete() const { return complete_; }
  LPPROC_THREAD_ATTRIBUTE_LIST list() const { return list_; }

 private:
  std::vector<HANDLE> handles_;
  std::vector<char> memory_;
  LPPROC_THREAD_ATTRIBUTE_LIST list_ = nullptr;
  bool initialized_ = false, complete_ = false;
};

struct Child {
  Handle process, thread;
  Handle job;  // ends with the last handle to it, and its processes with it: so none outlives this process
};

bool start(const std::filesystem::path& program, HANDLE output, Child* child) {
  SECURITY_ATTRIBUTES inherit{sizeof(SECURITY_ATTRIBUTES), nullptr, TRUE};
  const Handle null(CreateFileW(L"NUL", GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE,
                                &inherit, OPEN_EXISTING, 0, nullptr));
  if (!null.valid()) return false;
  const Inherited inherited({output, null.get()});
  if (!inherited.complete()) return false;
  STARTUPINFOEXW startup{};
  startup.StartupInfo.cb = sizeof startup;
  startup.StartupInfo.dwFlags = STARTF_USESTDHANDLES;
  startup.StartupInfo.hStdInput = startup.StartupInfo.hStdError = null.get();
  startup.StartupInfo.hStdOutput = output;
  startup.lpAttributeList = inherited.list();
  std::wstring command = L"\"" + program.wstring() + L"\"";  // a file name has no quotation marks
  PROCESS_INFORMATION process{};
  const DWORD flags = EXTENDED_STARTUPINFO_PRESENT | CREATE_NO_WINDOW | CREATE_SUSPENDED;
  if (!CreateProcessW(program.c_str(), command.data(), nullptr, nullptr, TRUE, flags, nullptr, nullptr,
                      &startup.StartupInfo, &process)) {
    return false;
  }
  *child->process.out() = process.hProcess;
  *child->thread.out() = process.hThread;
  JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits{};
  limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
  *child->job.out() = CreateJobObjectW(nullptr, nullptr);
  if (child->job.valid()) {
    SetInformationJobObject(child->job.get(), JobObjectExtendedLimitInformation, &limits, sizeof limits);
    AssignProcessToJobObject(child->job.get(), process.hProcess);
  }
  ResumeThread(process.hThread);
  return true;
}

// What lies in the pipe; false when that is more than fits.
bool take_output(HANDLE from, std::string* output) {
  char buffer[4096];
  DWORD there = 0, got = 0;
  while (PeekNamedPipe(from, nullptr, 0, nullptr, &there, nullptr) && there > 0) {
    const DWORD wanted = std::min<DWORD>(there, sizeof buffer);
    if (!ReadFile(from, buffer, wanted, &got, nullptr) || got == 0) break;
    output->append(buffer, got);
    if (output->size() > kProgramOutputBytes) {
      output->resize(kProgramOutputBytes);
      return false;
    }
  }
  return true;
}

}  // namespace

ProgramEnd run_program(const std::filesystem::path& program, std::chrono::milliseconds patience) {
  ProgramEnd end;
  SECURITY_ATTRIBUTES inherit{sizeof(SECURITY_ATTRIBUTES), nullptr, TRUE};
  Handle read_end, write_end;
  Child child;
  if (!CreatePipe(read_end.out(), write_end.out(), &inherit, 0) ||
      !SetHandleInformation(read_end.get(), HANDLE_FLAG_INHERIT, 0) ||
      !start(program, write_end.get(), &child)) {
    end.not_run = last_error();
    return end;
  }
  write_end.close();
  // Not until the other end is closed: another child of this process may have inherited that meanwhile.
  const Clock::time_point deadline = Clock::now() + patience;
  bool ended = false, fits = true;
  while (!ended && fits && Clock::now() < deadline) {
    ended = WaitForSingleObject(child.process.get(), kPollMs) == WAIT_OBJECT_0;
    fits = take_output(read_end.get(), &end.output);
  }
  if (!ended) {
    end.timed_out = fits;
    TerminateProcess(child.process.get(), 1);
    WaitForSingleObject(child.process.get(), kDeathPatienceMs);
    if (!fits) end.unnatural = "too much output";
    return end;
  }
  DWORD code = 0;
  GetExitCodeProcess(child.process.get(), &code);
  std::ostringstream text;
  if (code >= kFirstException) {
    text << "exception 0x" << std::hex << std::uppercase << code;
  } else if (code != 0) {
    text << "exit code " << code;
  }
  end.unnatural = text.str();
  return end;
}

}  // namespace redrafter

#endif
