// The masks of a round: which ids the lanes that follow a grammar may choose at each of their nodes. It takes
// memory only once a request has a grammar, and rounds without such a request neither wait nor launch more.
#pragma once

#include <vector>

#include "ops/ops.h"
#include "spec/mask_exchange.h"
#include "spec/mask_table.h"

namespace redrafter {

// The first node of a tree.
constexpr int32_t kRoot = 0, kNoParent = -1;

// What a lane knows of its grammar.
struct LaneGrammar {
  explicit LaneGrammar(int32_t matcher_number) : matcher(matcher_number) {}
  int32_t matcher;                 // the provider's name for it
  std::vector<int32_t> unmatched;  // generated ids that the matcher does not know of
  std::string error;               // why its tokens could not be masked
};

class MaskBatch {
 public:
  // `rows` that choose in a round at most. Without an exchange no lane can have a grammar.
  MaskBatch(const Backend& backend, int64_t rows, int64_t vocab, MaskExchange* exchange);
  MaskBatch(const MaskBatch&) = delete;
  MaskBatch& operator=(const MaskBatch&) = delete;

  // Takes the memory for rounds with grammars, unless it has it. Throws ERR_OOM.
  void reserve();

  void clear();
  // A lane with a grammar, and its tree, whose first node is `first` of the rows that choose. Masks are
  // wanted of its nodes from `wanted` on.
  void add_lane(LaneGrammar& grammar, int64_t first, std::vector<int32_t> token, std::vector<int32_t> parent,
                int64_t wanted = 0);
  void add_root(LaneGrammar& grammar, int64_t first) { add_lane(grammar, first, {kRoot}, {kNoParent}); }
  bool any() const { return !lanes_.empty(); }
  int64_t lanes() const { return static_cast<int64_t>(lanes_.size()); }
  void ask();
  // Waits for the answer, with the trees in the order of their lanes. Lanes without one get their error.
  MaskAnswer answer();
  // The same, and sends the masks, for `rows` rows that choose.
  void receive(int64_t rows, Stream& stream);
  // Whether the text of a row is complete and nothing but its end may follow. Such a row chooses -1.
  bool ends(int64_t row) const;
  // Adds the masks to the arguments of `sample`.
  void apply(SampleParams& params) const;

  // Of each lane whether its text is complete, as `ends` has it, after what it has emitted in this round, or
  // its error. Asks, and waits.
  std::vector<bool> complete(const std::vector<LaneGrammar*>& lanes);

 private:
  struct Lane {
    LaneGrammar* grammar;
    int64_t first;
  };
  MaskExchange* exchange_;
  MaskTable table_;  // the first mask is empty
  std::vector<Lane> lanes_;
  std::vector<MaskTree> question_;
};

}  // namespace redrafter
