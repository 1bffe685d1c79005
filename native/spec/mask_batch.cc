#include "spec/mask_batch.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace redrafter {

MaskBatch::MaskBatch(const Backend& backend, int64_t rows, int64_t vocab, MaskExchange* exchange)
    : exchange_(exchange), table_(backend, rows, 1 + rows, vocab) {}

void MaskBatch::reserve() {
  if (table_.reserved()) return;
  table_.reserve();
  std::fill_n(table_.mask(0), table_.words(), 0);
}

void MaskBatch::clear() {
  lanes_.clear();
  question_.clear();
}

void MaskBatch::add_lane(LaneGrammar& grammar, int64_t first, std::vector<int32_t> token,
                         std::vector<int32_t> parent, int64_t wanted) {
  REDRAFTER_CHECK(exchange_ != nullptr && table_.reserved());
  lanes_.push_back({&grammar, first});
  question_.push_back({grammar.matcher, static_cast<int32_t>(wanted), std::exchange(grammar.unmatched, {}),
                       std::move(token), std::move(parent)});
}

void MaskBatch::ask() { exchange_->ask(question_); }

MaskAnswer MaskBatch::answer() {
  MaskAnswer answer = exchange_->wait();
  size_t nodes = 0;
  for (const MaskTree& tree : question_) nodes += tree.token.size();
  if (answer.error.empty() && (static_cast<int64_t>(answer.words.size()) != answer.masks * table_.words() ||
                               answer.masks > static_cast<int64_t>(nodes))) {
    answer.error = "the thread that carries out grammars gave masks of another vocabulary";
  }
  if (!answer.error.empty()) {
    answer.masks = 0;
    answer.trees.assign(question_.size(), {false, {}});
  }
  for (size_t i = 0; i < answer.trees.size(); ++i) {
    if (answer.trees[i].known) continue;
    lanes_[i].grammar->error =
        answer.error.empty() ? "the thread that carries out grammars has lost this one" : answer.error;
  }
  return answer;
}

void MaskBatch::receive(int64_t rows, Stream& stream) {
  const MaskAnswer found = answer();
  int32_t* mask = table_.index();
  std::fill_n(mask, rows, kNoMask);
  for (size_t i = 0; i < lanes_.size(); ++i) {
    for (size_t node = 0; node < found.trees[i].mask.size(); ++node) {
      const int32_t number = found.trees[i].mask[node];
      mask[lanes_[i].first + static_cast<int64_t>(node)] = number == kEnds ? 0
                                                           : number < 0    ? kNoMask
                                                                           : number + 1;
    }
  }
  std::copy(found.words.begin(), found.words.end(), table_.mask(1));
  table_.upload(1 + found.masks, stream);
}

bool MaskBatch::ends(int64_t row) const { return any() && table_.index()[row] == 0; }

void MaskBatch::apply(SampleParams& params) const {
  if (!any()) return;
  params.mask_index = table_.sent_index();
  params.mask = table_.sent_masks();
}

std::vector<bool> MaskBatch::complete(const std::vector<LaneGrammar*>& lanes) {
  clear();
  for (LaneGrammar* grammar : lanes) add_root(*grammar, 0);
  ask();
  std::vector<bool> complete;
  for (const auto& tree : answer().trees) complete.push_back(tree.known && tree.mask[0] == kEnds);
  clear();
  return complete;
}

}  // namespace redrafter
