#include "spec/mask_batch.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace redrafter {

MaskBatch::MaskBatch(const Backend& backend, int64_t rows, int64_t vocab, MaskExchange* exchange)
    : backend_(backend), most_rows_(rows), words_(mask_words(vocab)), exchange_(exchange) {}

void MaskBatch::reserve() {
  if (host_ != nullptr) return;
  const auto bytes = static_cast<size_t>(most_rows_ + (1 + most_rows_) * words_) * sizeof(int32_t);
  auto host = std::make_unique<HostBuffer>(backend_, bytes);
  device_ = DeviceBuffer(backend_, bytes);
  host_ = std::move(host);
  std::fill_n(words(0), words_, 0);
}

int32_t* MaskBatch::words(int64_t mask) const {
  return static_cast<int32_t*>(host_->data()) + most_rows_ + mask * words_;
}

void MaskBatch::clear() {
  lanes_.clear();
  question_.clear();
}

void MaskBatch::add_lane(LaneGrammar& grammar, int64_t first, int64_t nodes, const int32_t* token,
                         const int32_t* parent) {
  REDRAFTER_CHECK(exchange_ != nullptr && host_ != nullptr);
  lanes_.push_back({&grammar, first});
  question_.push_back({grammar.matcher,
                       std::exchange(grammar.unmatched, {}),
                       {token, token + nodes},
                       {parent, parent + nodes}});
}

void MaskBatch::ask() { exchange_->ask(question_); }

MaskAnswer MaskBatch::answer() {
  MaskAnswer answer = exchange_->wait();
  if (answer.error.empty() &&
      (static_cast<int64_t>(answer.words.size()) != answer.masks * words_ || answer.masks > most_rows_)) {
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
  auto* mask = static_cast<int32_t*>(host_->data());
  std::fill_n(mask, rows, kNoMask);
  for (size_t i = 0; i < lanes_.size(); ++i) {
    for (size_t node = 0; node < found.trees[i].mask.size(); ++node) {
      const int32_t number = found.trees[i].mask[node];
      mask[lanes_[i].first + static_cast<int64_t>(node)] = number == kEnds ? 0
                                                           : number < 0    ? kNoMask
                                                                           : number + 1;
    }
  }
  if (found.masks > 0) std::copy_n(found.words.begin(), found.masks * words_, words(1));
  const auto bytes = static_cast<size_t>(most_rows_ + (1 + found.masks) * words_) * sizeof(int32_t);
  backend_.upload_later(device_.as<void>(), host_->data(), bytes, stream);
}

bool MaskBatch::ends(int64_t row) const {
  return any() && static_cast<const int32_t*>(host_->data())[row] == 0;
}

void MaskBatch::apply(SampleParams& params) const {
  if (!any()) return;
  params.mask_index = device_.as<int32_t>();
  params.mask = reinterpret_cast<const uint32_t*>(device_.as<int32_t>() + most_rows_);
}

std::vector<bool> MaskBatch::complete(const std::vector<LaneGrammar*>& lanes) {
  clear();
  for (LaneGrammar* grammar : lanes) add_lane(*grammar, 0, 1, &kRoot, &kNoParent);
  ask();
  std::vector<bool> complete;
  for (const auto& tree : answer().trees) complete.push_back(tree.known && tree.mask[0] == kEnds);
  clear();
  return complete;
}

}  // namespace redrafter
