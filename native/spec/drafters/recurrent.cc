#include "spec/drafters/recurrent.h"

#include <algorithm>
#include <utility>

namespace redrafter {

RecurrentDrafter::RecurrentDrafter(RecurrentWeights weights, Matrix embedding, const Backend& backend,
                                   Stream& stream)
    : weights_(std::move(weights)), embedding_(embedding), backend_(backend), stream_(stream) {
  Arena measure;
  carve(measure);
  workspace_ = DeviceBuffer(backend_, measure.used());
  Arena arena(workspace_.as<void>(), workspace_.bytes());
  carve(arena);
}

void RecurrentDrafter::carve(Arena& arena) {
  const DrafterConfig& c = weights_.config;
  const int64_t w = kMaxBeamWidth, columns = kMaxBeamLength + 1;
  last_ = arena.take<int32_t>(w);
  state_ = arena.take<float>(w * c.hidden);
  state_next_ = arena.take<float>(w * c.hidden);
  cell_scratch_ = arena.take<float>(w * 7 * c.hidden);
  z_ = arena.take<float>(w * c.exit);
  z_next_ = arena.take<float>(w * c.exit);
  mix_scratch_ = arena.take<float>(w * 2 * c.hidden);
  top_token_ = arena.take<int32_t>(w * w);
  top_logit_ = arena.take<float>(w * w);
  log_sum_exp_ = arena.take<float>(w);
  head_scratch_ = arena.take<float>(w * head_top_scratch(weights_.head.rows));
  score_ = arena.take<float>(w);
  score_next_ = arena.take<float>(w);
  beams_ = arena.take<int32_t>(w * columns);
  beams_next_ = arena.take<int32_t>(w * columns);
  live_ = arena.take<int32_t>(1);
  beam_scratch_ = arena.take<float>(w * w + 2 * w);
  unpack_ = arena.take<int32_t>(w * columns);
  nodes_ = arena.take<int32_t>(1);
}

int64_t RecurrentDrafter::step(const Proposal& proposal, int64_t rows, int64_t step) {
  const RecurrentWeights& r = weights_;
  const int64_t hidden = r.config.hidden, exit = r.config.exit, columns = proposal.length + 1;
  for (int64_t i = 0; i < rows; ++i) last_[i] = beams_[i * columns + step - 1];
  backend_.cell({r.config.cell, nullptr, last_, embedding_, state_, state_next_, r.w, r.u, r.w_bias, r.u_bias,
                 rows, hidden, cell_scratch_},
                stream_);
  backend_.mix(
      {proposal.hidden, state_next_, r.projection, r.projection_bias, z_, rows, hidden, exit, mix_scratch_},
      stream_);
  for (const auto& block : r.blocks) {
    backend_.residual({z_, z_next_, block.a, block.bias, rows, exit}, stream_);
    std::swap(z_, z_next_);
  }
  backend_.head_top({z_, r.head, rows, proposal.width, top_token_, top_logit_, log_sum_exp_, head_scratch_},
                    stream_);
  backend_.beam(
      {top_token_, top_logit_, log_sum_exp_, r.id_map, score_, beams_, state_next_, rows, proposal.width,
       columns, step, hidden, score_next_, beams_next_, state_, live_, beam_scratch_},
      stream_);
  std::swap(score_, score_next_);
  std::swap(beams_, beams_next_);
  return *live_;
}

void RecurrentDrafter::propose(const Proposal& proposal, DraftTree& tree) {
  tree.plant(proposal.root);
  // One live beam to start with: the root. Its clones would only be duplicates for the tree to remove.
  beams_[0] = proposal.root;
  score_[0] = 0.0f;
  std::fill(state_, state_ + weights_.config.hidden, 0.0f);
  int64_t live = 1;
  for (int64_t t = 1; t <= proposal.length; ++t) {
    live = step(proposal, live, t);
    if (live == 0) return;  // a drafter of NaN: decode this round plainly
  }
  backend_.tree_pack({beams_, live, proposal.length, tree.token.data(), tree.parent.data(), tree.depth.data(),
                      unpack_, nodes_},
                     stream_);
  tree.nodes = *nodes_;
}

}  // namespace redrafter
