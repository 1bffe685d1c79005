#include "options.h"

#include <cstdlib>
#include <map>

#include "backends.h"

namespace redrafter::lab {

const char* const kHelp =
    "usage: lab COMMAND [options]\n"
    "\n"
    "without a device:\n"
    "  floors       bytes, operations and the least time on an H100, for every kernel\n"
    "  goals FILE.. what the files of bandwidth, kernels, steps and rounds say of the goals\n"
    "\n"
    "on a device, or on --device cpu:\n"
    "  lossless     an engine decodes 33 requests alone, together, plainly and drafted: ids, "
    "log-probabilities\n"
    "               and KV must be the same\n"
    "  parity       an engine beside the oracle of the CPU: KV and log-probabilities within bounds\n"
    "\n"
    "on a device:\n"
    "  once         runs every kernel once, without whole steps: for compute-sanitizer\n"
    "  invariance   compares the bits of rows between launches of different sizes and places in a tile\n"
    "  bandwidth    copy and read\n"
    "  kernels      every kernel's time and its share of the bandwidth that copying reaches\n"
    "  steps        the same of whole forward passes: plain decoding at one row, verification at 2 to 64\n"
    "  drafts       the same of draft rounds at beam width 1 to 64\n"
    "  rounds       whole rounds of 1 to 64 requests on random weights, plain, and drafted with a simulated\n"
    "               acceptance\n"
    "\n"
    "  --model NAME    only shapes of this model (part of the name; tiny: one for the emulator). lossless "
    "and\n"
    "                  parity: writes random weights of that shape to a temporary folder; without it and\n"
    "                  without --target: the model in models/\n"
    "  --kernel NAME   only kernels with NAME in their name\n"
    "  --rows N        only cases of N rows; rounds: of N requests\n"
    "  --json FILE     also write the results there\n"
    "  --summary       the cases that native/ops/README.md lists\n"
    "  --markdown      floors: as a table of the Markdown kind\n"
    "kernels, drafts:\n"
    "  --device cpu    or cpu:LEVEL: on the CPU backend, at --model small, say, up to 64 rows\n"
    "  --threads N     there (1)\n"
    "  --seconds S     least time of each measurement there (0.1)\n"
    "  --dtypes LIST, --drafter-dtypes LIST   of weights there: bf16, f16, f32, q8_0, q4_0 (bf16)\n"
    "  --megabytes N   of memory that is read there beside each kernel: more than caches hold (128)\n"
    "lossless and parity:\n"
    "  --device NAME   cpu, cpu:LEVEL, or what the kernels of this lab run on, which is the default\n"
    "  --target DIR, --drafter DIR   this model instead\n"
    "  --prompts FILE  token ids for --target and the bundled model, a prompt a line "
    "(bench/lab/prompts.txt)\n"
    "  --sizes LIST    numbers of requests at once (1,2,3,4,5,8,9,16,17,32,33)\n"
    "  --tokens N      to generate per request (24)\n"
    "  --temporary DIR for random weights: 3 GB for 1B, 16 GB for 8B\n"
    "  --plant WHAT    a fault that must be noticed: seed, kv (lossless); token (parity)\n";

namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    parts.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return parts;
}

bool parse_sizes(const std::string& text, std::vector<int64_t>& sizes) {
  sizes.clear();
  for (const std::string& part : split(text)) {
    sizes.push_back(std::atoll(part.c_str()));
    if (sizes.back() < 1 || sizes.back() > 33) return false;
  }
  return true;
}

}  // namespace

bool parse(int argc, char** argv, Options& o) {
  o.device = kKernelsDevice;
  const std::map<std::string, std::string*> texts = {
      {"--model", &o.model},     {"--kernel", &o.kernel}, {"--json", &o.json},
      {"--device", &o.device},   {"--target", &o.target}, {"--drafter", &o.drafter},
      {"--prompts", &o.prompts}, {"--plant", &o.plant},   {"--temporary", &o.temporary},
  };
  const std::map<std::string, int64_t*> numbers = {
      {"--rows", &o.rows}, {"--tokens", &o.tokens}, {"--threads", &o.threads}, {"--megabytes", &o.megabytes}};
  const std::map<std::string, bool*> flags = {{"--markdown", &o.markdown}, {"--summary", &o.summary}};
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (const auto flag = flags.find(arg); flag != flags.end()) {
      *flag->second = true;
    } else if (arg[0] != '-') {
      if (o.command.empty()) {
        o.command = arg;
      } else {
        o.files.push_back(arg);
      }
    } else if (++i == argc) {
      return false;
    } else if (const auto text = texts.find(arg); text != texts.end()) {
      *text->second = argv[i];
    } else if (const auto number = numbers.find(arg); number != numbers.end()) {
      *number->second = std::atoll(argv[i]);
    } else if (arg == "--dtypes" || arg == "--drafter-dtypes") {
      (arg == "--dtypes" ? o.dtypes : o.drafter_dtypes) = split(argv[i]);
    } else if (arg == "--seconds") {
      o.seconds = std::atof(argv[i]);
    } else if (arg != "--sizes" || !parse_sizes(argv[i], o.sizes)) {
      return false;
    }
  }
  return o.threads >= 1 && o.megabytes >= 1 && (o.files.empty() || o.command == "goals");
}

}  // namespace redrafter::lab
