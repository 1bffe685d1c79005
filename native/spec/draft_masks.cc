#include "spec/draft_masks.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/check.h"

namespace redrafter {
namespace {

constexpr int64_t kColumns = kMaxBeamLength + 1, kTokens = kMaxBeamWidth * kColumns;

size_t bytes_of(int64_t count) { return static_cast<size_t>(count) * sizeof(int32_t); }

}  // namespace

DraftMasks::DraftMasks(const Backend& backend, int64_t lanes, int64_t vocab, MaskBatch& grammars,
                       Stream& stream)
    : backend_(backend),
      grammars_(grammars),
      stream_(stream),
      lane_masks_(backend, lanes, lanes, vocab),
      beam_masks_(backend, kMaxBeamWidth, kMaxBeamWidth, vocab) {}

void DraftMasks::reserve_beams() {
  if (beams_ == nullptr) beams_ = std::make_unique<HostBuffer>(backend_, bytes_of(kTokens + kMaxBeamWidth));
  beam_masks_.reserve();
}

void DraftMasks::clear() {
  lanes_.clear();
  masks_ = 0;
  sending_ = false;
}

void DraftMasks::add_lane(const LaneControl* control, LaneGrammar* grammar) {
  Lane lane{-1, grammar};
  if (control != nullptr && !control->undrafted().empty()) {
    REDRAFTER_CHECK(lane_masks_.reserved() && masks_ < lane_masks_.most_masks());
    lane.mask = static_cast<int32_t>(masks_++);
    uint32_t* mask = lane_masks_.mask(lane.mask);
    std::fill_n(mask, lane_masks_.words(), ~uint32_t{0});
    for (const int32_t id : control->undrafted()) mask[id / 32] &= ~(uint32_t{1} << (id % 32));
  }
  if (lane_masks_.reserved()) lane_masks_.index()[lanes_.size()] = lane.mask;
  lanes_.push_back(lane);
}

void DraftMasks::upload() const {
  if (any()) lane_masks_.upload(masks_, stream_);
}

DraftMask DraftMasks::from(int64_t first) const {
  if (!any()) return {};
  return {lane_masks_.sent_masks(), lane_masks_.sent_index() + first, lane_masks_.words()};
}

bool DraftMasks::has_grammar(int64_t first, int64_t lanes) const {
  const auto begin = lanes_.begin() + first;
  return std::any_of(begin, begin + lanes, [](const Lane& lane) { return lane.grammar != nullptr; });
}

// Before the first step there are the roots alone, which the grammars know of: nobody has to wait for them.
void DraftMasks::look(const BeamsSoFar& b) {
  REDRAFTER_CHECK(beams_ != nullptr && b.lanes * b.beams <= kMaxBeamWidth && b.columns <= kColumns);
  if (b.step == 1) return;
  auto* tokens = static_cast<int32_t*>(beams_->data());
  backend_.download_later(tokens, b.tokens, bytes_of(b.lanes * b.beams * b.columns), stream_);
  backend_.download_later(tokens + kTokens, b.live, bytes_of(b.lanes), stream_);
  backend_.wait(stream_);
  sending_ = false;
}

void DraftMasks::ask(const BeamsSoFar& b) {
  look(b);
  const auto* tokens = static_cast<const int32_t*>(beams_->data());
  beams_each_ = b.beams;
  asked_.clear();
  grammars_.clear();
  for (int64_t i = 0; i < b.lanes; ++i) {
    const Lane& lane = lanes_[static_cast<size_t>(b.first_lane + i)];
    asked_.push_back({lane.mask, -1, {}});
    if (lane.grammar == nullptr || !lane.grammar->error.empty()) continue;
    ask_lane(*lane.grammar, tokens + i * b.beams * b.columns, b.step == 1 ? 1 : tokens[kTokens + i], b,
             asked_.back());
  }
  if (grammars_.any()) grammars_.ask();
}

// Beams that begin alike are one path as far as they do. Nodes come by depth, so the last ones are those that
// masks are wanted of.
void DraftMasks::ask_lane(LaneGrammar& grammar, const int32_t* beams, int64_t live, const BeamsSoFar& shape,
                          Asked& asked) {
  std::vector<int32_t> token{kRoot}, parent{kNoParent};
  asked.leaf.assign(static_cast<size_t>(live), 0);
  int64_t wanted = 0;
  for (int64_t column = 1; column < shape.step; ++column) {
    wanted = static_cast<int64_t>(token.size());
    std::map<std::pair<int32_t, int32_t>, int32_t> nodes;  // by parent and token
    for (int64_t beam = 0; beam < live; ++beam) {
      int32_t& node = asked.leaf[static_cast<size_t>(beam)];
      const int32_t id = beams[beam * shape.columns + column];
      const auto [at, is_new] = nodes.try_emplace({node, id}, static_cast<int32_t>(token.size()));
      if (is_new) token.push_back(id), parent.push_back(node);
      node = at->second;
    }
  }
  asked.tree = grammars_.lanes();
  grammars_.add_lane(grammar, 0, token, parent, wanted);
}

// The number, in the answer, of what may follow a beam; or below 0.
int32_t DraftMasks::allowed(const MaskAnswer& found, const Asked& asked, size_t beam) {
  if (asked.tree < 0 || beam >= asked.leaf.size()) return kNoMask;
  const MaskAnswer::Tree& tree = found.trees[static_cast<size_t>(asked.tree)];
  return tree.known ? tree.mask[static_cast<size_t>(asked.leaf[beam])] : kNoMask;
}

// The number of a new mask in beam_masks_: what a lane may draft, as far as the answer allows it. Either may
// be none.
int32_t DraftMasks::add_beam_mask(int32_t lane_mask, const MaskAnswer& found, int32_t number) {
  uint32_t* mask = beam_masks_.mask(beam_masks_count_);
  const int64_t words = beam_masks_.words();
  if (lane_mask >= 0) {
    std::copy_n(lane_masks_.mask(lane_mask), words, mask);
  } else {
    std::fill_n(mask, words, ~uint32_t{0});
  }
  for (int64_t i = 0; number >= 0 && i < words; ++i)
    mask[i] &= static_cast<uint32_t>(found.words[static_cast<size_t>(number * words + i)]);
  return static_cast<int32_t>(beam_masks_count_++);
}

// Behind the end of a text nothing is chosen, so anything may be drafted there, and the beams stay as long as
// the others. Beams of a lane that have the same mask share it.
DraftMask DraftMasks::receive() {
  const MaskAnswer found = grammars_.any() ? grammars_.answer() : MaskAnswer{};
  if (sending_) backend_.wait(stream_);
  beam_masks_count_ = 0;
  int32_t* row = beam_masks_.index();
  for (const Asked& asked : asked_) {
    std::vector<int32_t> added(static_cast<size_t>(found.masks), -1);  // by number in the answer
    int32_t of_lane = -1;
    for (int64_t beam = 0; beam < beams_each_; ++beam) {
      const int32_t number = allowed(found, asked, static_cast<size_t>(beam));
      int32_t& mask = number < 0 ? of_lane : added[static_cast<size_t>(number)];
      if (mask < 0 && (number >= 0 || asked.mask >= 0)) mask = add_beam_mask(asked.mask, found, number);
      *row++ = mask;
    }
  }
  beam_masks_.upload(beam_masks_count_, stream_);
  sending_ = true;
  return {beam_masks_.sent_masks(), beam_masks_.sent_index(), beam_masks_.words()};
}

}  // namespace redrafter
