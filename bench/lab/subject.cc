#include <cstdio>
#include <fstream>
#include <random>
#include <sstream>

#include "base/check.h"
#include "lossless.h"
#include "synthetic.h"

namespace redrafter::lab {
namespace {

constexpr const char* kBundled = "models/ts-declarations";
constexpr size_t kPrompts = 33;
constexpr int64_t kMaxPositions = 512;

std::vector<std::vector<int32_t>> read_prompts(const std::string& path) {
  std::ifstream file(path);
  REDRAFTER_REQUIRE(file.good(), "ERR_FILE", "cannot read the prompts in ", path);
  std::vector<std::vector<int32_t>> prompts;
  for (std::string line; std::getline(file, line);) {
    std::istringstream ids(line);
    std::vector<int32_t> prompt;
    for (int32_t id; ids >> id;) prompt.push_back(id);
    if (!prompt.empty()) prompts.push_back(prompt);
  }
  REDRAFTER_REQUIRE(prompts.size() >= kPrompts, "ERR_FILE", path, " has ", prompts.size(), " prompts, ",
                    kPrompts, " are needed");
  return prompts;
}

std::vector<std::vector<int32_t>> random_prompts(int64_t vocab) {
  std::mt19937 random(5);
  std::vector<std::vector<int32_t>> prompts(kPrompts);
  for (size_t i = 0; i < kPrompts; ++i) {
    prompts[i].resize(1 + random() % 40);
    for (int32_t& id : prompts[i]) id = static_cast<int32_t>(random() % static_cast<unsigned>(vocab));
  }
  return prompts;
}

int with_shape(const Options& o, const std::function<int(const Subject&)>& use) {
  const std::vector<ModelShape> shapes = shapes_named(o.model);
  REDRAFTER_REQUIRE(shapes.size() == 1, "ERR_INVALID_ARGUMENT", "--model ", o.model, " names ", shapes.size(),
                    " shapes, not one");
  const ModelShape& m = shapes.front();
  std::printf("writing random weights of %s\n", m.name);
  std::fflush(stdout);
  const Synthetic files(o.temporary, m, kMaxPositions);
  return use({std::string("random ") + m.name,
              files.target(),
              {{"knowing", files.knowing(), true}, {"random", files.random(), false}},
              random_prompts(m.vocab)});
}

}  // namespace

int with_subject(const Options& o, const std::function<int(const Subject&)>& use) {
  if (!o.model.empty()) return with_shape(o, use);
  if (!o.target.empty()) {
    return use({o.target, o.target, {{o.drafter, o.drafter, true}}, read_prompts(o.prompts)});
  }
  const std::string bundled = kBundled;
  return use({"the bundled model",
              bundled,
              {{"gru", bundled + "/drafter-gru", true}, {"elman", bundled + "/drafter-elman", true}},
              read_prompts(o.prompts)});
}

}  // namespace redrafter::lab
