// Another program, run to its end: for what may crash or hang without the process that asks.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>

namespace redrafter {

struct ProgramEnd {
  std::string output;   // of its standard output; what is behind kProgramOutputBytes is not read
  std::string not_run;  // why it could not be started; empty when it was
  bool timed_out = false;
  std::string
      unnatural;  // "signal 11 (SIGSEGV)", "exit code 3"; empty when it ended by itself with exit code 0
};

constexpr size_t kProgramOutputBytes = 1 << 16;

// Starts `program`, an absolute path, without arguments and without a shell, in the environment of this
// process, with nothing to read and nobody to hear what it says to standard error. Kills it when it has not
// ended in patience, or says more than kProgramOutputBytes. Any thread may call. Never throws for what the
// program does; std::bad_alloc is possible.
ProgramEnd run_program(const std::filesystem::path& program, std::chrono::milliseconds patience);

}  // namespace redrafter
