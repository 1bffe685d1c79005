#include "spec/drafters/recurrent.h"

#include <algorithm>
#include <utility>

#include "ops/matmul_quant.h"

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
  const int64_t rows = kRows, columns = kMaxBeamLength + 1;
  state_ = arena.take<float>(rows * c.hidden);
  state_next_ = arena.take<float>(rows * c.hidden);
  cell_scratch_ = arena.take<float>(rows * 7 * c.hidden);
  z_ = arena.take<float>(rows * c.exit);
  z_next_ = arena.take<float>(rows * c.exit);
  mix_scratch_ = arena.take<float>(rows * 2 * c.hidden);
  top_token_ = arena.take<int32_t>(rows * kMaxBeamWidth);
  top_logit_ = arena.take<float>(rows * kMaxBeamWidth);
  log_sum_exp_ = arena.take<float>(rows);
  head_scratch_ = arena.take<float>(rows * head_top_scratch(weights_.head.rows));
  scores_ = arena.take<float>(rows * columns);
  scores_next_ = arena.take<float>(rows * columns);
  beams_ = arena.take<int32_t>(rows * columns);
  beams_next_ = arena.take<int32_t>(rows * columns);
  live_ = arena.take<int32_t>(rows);
  beam_scratch_ = arena.take<float>(rows * (kMaxBeamWidth + 2));
  unpack_ = arena.take<int32_t>(rows * columns);
  pack_scratch_ = arena.take<int32_t>(2 * max_tree_nodes(kMaxBeamWidth, kMaxBeamLength));
  if (any_quantised(weights_)) {
    const int64_t cell = quant_room(2 * rows, c.hidden), mix = quant_room(rows, 2 * c.hidden);
    room_ = arena.take<QuantGroup>(std::max({cell, mix, quant_room(rows, c.exit)}));
  }
}

void RecurrentDrafter::step(const Proposal& proposal, int64_t beams, int64_t step) {
  const RecurrentWeights& r = weights_;
  const int64_t hidden = r.config.hidden, exit = r.config.exit, columns = proposal.length + 1;
  const int64_t rows = proposal.lanes * beams;
  if (proposal.beam_masks != nullptr) {
    proposal.beam_masks->ask(
        {proposal.first_lane, proposal.lanes, beams, step, beams_, columns, step == 1 ? nullptr : live_});
  }
  backend_.cell({r.config.cell, nullptr, beams_ + step - 1, embedding_, state_, state_next_, r.w, r.u,
                 r.w_bias, r.u_bias, rows, hidden, cell_scratch_, columns, room_},
                stream_);
  backend_.mix({proposal.hidden, state_next_, r.projection, r.projection_bias, z_, rows, hidden, exit,
                mix_scratch_, proposal.hidden_row, beams, room_},
               stream_);
  for (const auto& block : r.blocks) {
    backend_.residual({z_, z_next_, block.a, block.bias, rows, exit, room_}, stream_);
    std::swap(z_, z_next_);
  }
  HeadTopParams head{z_,         r.head,       rows,          proposal.width, top_token_,
                     top_logit_, log_sum_exp_, head_scratch_, room_};
  const DraftMask mask = proposal.beam_masks != nullptr ? proposal.beam_masks->receive() : proposal.mask;
  head.mask_rows = proposal.beam_masks != nullptr ? 1 : beams;
  head.mask = mask.words, head.mask_index = mask.index, head.mask_words = mask.mask_words;
  head.id_map = r.id_map;
  backend_.head_top(head, stream_);
  backend_.beam(
      {top_token_, top_logit_, log_sum_exp_, r.id_map, scores_, beams_, state_next_, beams, proposal.width,
       columns, step, hidden, scores_next_, beams_next_, state_, live_, beam_scratch_, proposal.lanes},
      stream_);
  std::swap(scores_, scores_next_);
  std::swap(beams_, beams_next_);
}

void RecurrentDrafter::propose(const Proposal& proposal, const DraftTrees& trees) {
  const int64_t at_once = kRows / proposal.width, nodes = proposal.budget;
  for (int64_t first = 0; first < proposal.lanes; first += at_once) {
    Proposal some = proposal;
    some.hidden_row += first;
    some.root += first;
    some.first_lane += first;
    if (some.mask.index != nullptr) some.mask.index += first;
    some.lanes = std::min(at_once, proposal.lanes - first);
    propose_some(some, {trees.token + first * nodes, trees.parent + first * nodes,
                        trees.depth + first * nodes, trees.nodes + first});
  }
}

// One live beam to start with: the root. Its clones would only be duplicates for the tree to remove.
void RecurrentDrafter::propose_some(const Proposal& p, const DraftTrees& trees) {
  backend_.beam_start({p.root, p.lanes, p.length + 1, weights_.config.hidden, scores_, beams_, state_},
                      stream_);
  for (int64_t t = 1; t <= p.length; ++t) step(p, t == 1 ? 1 : p.width, t);
  backend_.tree_pack({beams_, scores_, p.root, live_, p.lanes, p.width, p.length, p.budget, p.least,
                      trees.token, trees.parent, trees.depth, unpack_, trees.nodes, pack_scratch_},
                     stream_);
}

}  // namespace redrafter
