// run_program() on POSIX systems; program_windows.cc has it for Windows.
#if !defined(_WIN32)

#include "base/program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <thread>
#include <utility>

#if defined(__APPLE__)
#include <crt_externs.h>
#else
extern char** environ;
#endif

namespace redrafter {
namespace {

using Clock = std::chrono::steady_clock;

// After it was killed. What waits in the kernel for a driver cannot be killed, and is left to itself then.
constexpr auto kDeathPatience = std::chrono::seconds(2);
constexpr auto kPollInterval = std::chrono::milliseconds(2);
constexpr int kFirstFree = 3;  // descriptors below mean something in the child

std::string error_text(int error) { return std::generic_category().message(error); }

char** environment() {
#if defined(__APPLE__)
  return *_NSGetEnviron();
#else
  return environ;
#endif
}

class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }
  int number() const { return number_; }
  // Takes a copy that no program inherits and that is none of the standard ones.
  bool take(int other) {
    close();
    number_ = fcntl(other, F_DUPFD_CLOEXEC, kFirstFree);
    const int error = errno;
    ::close(other);
    errno = error;
    return number_ >= 0;
  }
  void close() {
    if (number_ >= 0) ::close(number_);
    number_ = -1;
  }

 private:
  int number_;
};

// An error number, or 0.
int open_pipe(Descriptor* read_end, Descriptor* write_end) {
  int ends[2];
#if defined(__linux__)
  if (pipe2(ends, O_CLOEXEC) != 0) return errno;
#else
  if (pipe(ends) != 0) return errno;
#endif
  const bool first = read_end->take(ends[0]);
  const int error = errno;
  if (!write_end->take(ends[1])) return errno;
  return first ? 0 : error;
}

// An error number, or 0. The child begins as one of a shell would: no signal is blocked or ignored, as
// Node.js ignores some.
int start(const std::filesystem::path& program, int output, pid_t* child) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  if (const int error = posix_spawn_file_actions_init(&actions); error != 0) return error;
  if (const int error = posix_spawnattr_init(&attributes); error != 0) {
    posix_spawn_file_actions_destroy(&actions);
    return error;
  }
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  sigdelset(&all, SIGKILL);
  sigdelset(&all, SIGSTOP);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  int error = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  if (error == 0) error = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  if (error == 0) error = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  if (error == 0) {
    std::string name = program.string();
    char* const arguments[] = {name.data(), nullptr};
    error = posix_spawn(child, name.c_str(), &actions, &attributes, arguments, environment());
  }
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

// Until the other end is closed, too much was said or it is too late. False in the last two cases.
bool hear(int from, Clock::time_point deadline, ProgramEnd* end) {
  char buffer[4096];
  while (end->output.size() <= kProgramOutputBytes) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd ready{from, POLLIN, 0};
    const int found = poll(&ready, 1, static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30)));
    if (found == 0) {
      end->timed_out = true;
      return false;
    }
    const ssize_t got = found < 0 ? -1 : read(from, buffer, sizeof buffer);
    if (got == 0) return true;
    if (got > 0) end->output.append(buffer, static_cast<size_t>(got));
    if (got < 0 && errno != EINTR) return true;  // what there is will be judged
  }
  end->output.resize(kProgramOutputBytes);
  return false;
}

enum class Waited { kEnded, kRuns, kUnknown };

// kUnknown: somebody else has waited for the child, or this process lets the system do it.
Waited wait_until(pid_t child, Clock::time_point deadline, int* status) {
  for (;;) {
    const pid_t got = waitpid(child, status, WNOHANG);
    if (got == child) return Waited::kEnded;
    if (got < 0 && errno != EINTR) return Waited::kUnknown;
    if (got == 0 && Clock::now() >= deadline) return Waited::kRuns;
    if (got == 0) std::this_thread::sleep_for(kPollInterval);
  }
}

std::string signal_text(int number) {
  static constexpr std::pair<int, const char*> kNames[] = {
      {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},   {SIGFPE, "SIGFPE"},   {SIGHUP, "SIGHUP"},
      {SIGILL, "SIGILL"},   {SIGINT, "SIGINT"},   {SIGKILL, "SIGKILL"}, {SIGSEGV, "SIGSEGV"},
      {SIGSYS, "SIGSYS"},   {SIGTERM, "SIGTERM"}, {SIGTRAP, "SIGTRAP"}};
  std::string text = "signal " + std::to_string(number);
  for (const auto& [known, name] : kNames) {
    if (known == number) text += std::string(" (") + name + ")";
  }
  return text;
}

}  // namespace

ProgramEnd run_program(const std::filesystem::path& program, std::chrono::milliseconds patience) {
  ProgramEnd end;
  Descriptor read_end, write_end;
  pid_t child = 0;
  int error = open_pipe(&read_end, &write_end);
  if (error == 0) error = start(program, write_end.number(), &child);
  if (error != 0) {
    end.not_run = error_text(error);
    return end;
  }
  write_end.close();
  const Clock::time_point deadline = Clock::now() + patience;
  const bool heard_all = hear(read_end.number(), deadline, &end);
  int status = 0;
  Waited waited = wait_until(child, heard_all ? deadline : Clock::now(), &status);
  if (waited == Waited::kRuns) {
    end.timed_out = end.timed_out || heard_all;
    kill(child,
         SIGKILL);  // it is this process that would have to wait for it, so the number is still its own
    waited = wait_until(child, Clock::now() + kDeathPatience, &status);
  }
  if (waited != Waited::kEnded || end.timed_out) return end;
  if (!heard_all) {
    end.unnatural = "too much output";
    return end;
  }
  if (WIFSIGNALED(status)) end.unnatural = signal_text(WTERMSIG(status));
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
    end.unnatural = "exit code " + std::to_string(WEXITSTATUS(status));
  return end;
}

}  // namespace redrafter

#endif
