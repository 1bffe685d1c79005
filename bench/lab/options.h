// The lab's command line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace redrafter::lab {

struct Options {
  std::string command;
  std::string model, kernel;  // parts of names
  std::string json;           // file
  std::string device;
  std::string target, drafter;  // directories
  std::string temporary;        // directory
  std::string prompts = "bench/lab/prompts.txt";
  std::string plant;
  std::vector<int64_t> sizes{1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33};
  std::vector<std::string> files;
  int64_t rows = 0, tokens = 24, threads = 1;
  double seconds = 0.1;
  std::vector<std::string> dtypes{"bf16"}, drafter_dtypes{"bf16"};  // of weights
  int64_t megabytes = 128;
  bool markdown = false, summary = false;
};

// False when the arguments make no sense.
bool parse(int argc, char** argv, Options& options);
extern const char* const kHelp;

}  // namespace redrafter::lab
