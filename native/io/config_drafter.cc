#include <new>

#include "base/check.h"
#include "io/config.h"
#include "io/config_object.h"
#include "io/config_quantised.h"
#include "io/file.h"
#include "io/text.h"

namespace redrafter {
namespace {

using json::Kind;
using json::Value;

constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxHidden = 1 << 18;
constexpr int64_t kMaxExit = 1 << 20;
constexpr int64_t kMaxBlocks = 64;

bool names_architecture(const ConfigObject& config, const char* name) {
  const std::optional<Value> names = config.find("architectures");
  if (!names || !names->is(Kind::kArray)) return false;
  for (const Value each : *names) {
    if (each.is(Kind::kString) && each.text() == name) return true;
  }
  return false;
}

// Apple's reference writes "recurrent_drafting_drafter"; redrafter's own format has a type of its own.
bool is_apple_format(const ConfigObject& config) {
  const std::string type = config.has("model_type") ? config.string("model_type") : "";
  if (type == "redrafter_drafter") return false;
  if (type == "recurrent_drafting_drafter") return true;
  if (type.empty() && names_architecture(config, "Drafter")) return true;
  config.fail("model_type", "is " + (type.empty() ? "missing" : quote(type)) +
                                ": this is not a drafter (expected \"redrafter_drafter\" or "
                                "\"recurrent_drafting_drafter\")");
}

Cell read_cell(const ConfigObject& config) {
  const std::string name = config.string("cell");
  for (const Cell cell : {Cell::kSum, Cell::kElman, Cell::kGru}) {
    if (name == cell_name(cell)) return cell;
  }
  config.fail_type("cell", "\"sum\", \"elman\" or \"gru\"", *config.find("cell"));
}

DrafterConfig parse_drafter_config(const std::string& directory) {
  require_directory(directory);
  const ConfigObject config = ConfigObject::read(join_path(directory, "config.json"));
  DrafterConfig drafter;
  drafter.apple_format = is_apple_format(config);
  if (drafter.apple_format) {
    // Files written before the key existed mean the sum of embeddings.
    drafter.cell = config.boolean_or("rnn", false) ? Cell::kElman : Cell::kSum;
  } else {
    drafter.cell = read_cell(config);
  }
  drafter.quantised = read_quantised(config);
  drafter.vocab = config.integer("vocab_size", 1, kMaxVocab);
  drafter.hidden = config.integer("hidden_size", 1, kMaxHidden);
  drafter.exit = config.has("exit_dim") ? config.integer("exit_dim", 1, kMaxExit) : 2 * drafter.hidden;
  drafter.blocks = config.integer("num_draft_layers", 0, kMaxBlocks);
  return drafter;
}

}  // namespace

DrafterConfig read_drafter_config(const std::string& directory) try {
  return parse_drafter_config(directory);
} catch (const std::bad_alloc&) {
  fail("ERR_OOM", "not enough memory to read the configuration in ", quote_path(directory));
}

}  // namespace redrafter
