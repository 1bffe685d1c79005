#include "spec/round.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"

namespace redrafter {
namespace {

using Clock = std::chrono::steady_clock;

double ms_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

int32_t narrow(int64_t value) { return static_cast<int32_t>(value); }

}  // namespace

Round::Round(Model& model, KvCache& cache, Drafter* drafter, Stream& stream, int64_t prefill_chunk)
    : model_(model),
      cache_(cache),
      drafter_(drafter),
      stream_(stream),
      prefill_chunk_(prefill_chunk),
      table_stride_(
          (model.limits().positions + max_tree_nodes(kMaxBeamWidth, kMaxBeamLength)) / kBlockTokens + 1),
      path_(static_cast<size_t>(max_tree_nodes(kMaxBeamWidth, kMaxBeamLength))),
      sample_scratch_(model.backend(), static_cast<size_t>(workspace_bytes(model))) {}

int64_t Round::workspace_bytes(const Model& model) {
  return model.limits().threads * sample_scratch(model.config().vocab);
}

int64_t Round::rows_wanted(const Lane& lane) const {
  if (lane.decoding) return max_tree_nodes(lane.beam_width, lane.beam_length);
  return std::min(static_cast<int64_t>(lane.tokens->size()) - lane.kv->length(), prefill_chunk_);
}

// A round emits at most one token more than its tree is deep, so deeper trees than that are not drafted.
void Round::draft(Lane& lane) {
  const int64_t length = std::min(lane.beam_length, lane.max_tokens - lane.generated - 1);
  if (drafter_ == nullptr || lane.beam_width <= 0 || length <= 0) {
    lane.tree.plant(lane.tokens->back());
    return;
  }
  drafter_->propose({lane.hidden_state.as<float>(), lane.tokens->back(), lane.beam_width, length}, lane.tree);
}

void Round::add_row(int32_t token, int64_t position, int64_t slot, int32_t sequence, int64_t context) {
  token_.push_back(token);
  position_.push_back(narrow(position));
  slot_.push_back(narrow(slot));
  sequence_.push_back(sequence);
  context_.push_back(narrow(context));
}

// The last row added gets logits; they choose the token at position + 1.
void Round::add_output(const Lane& lane, int64_t position) {
  outputs_.push_back(narrow(static_cast<int64_t>(token_.size()) - 1));
  spec_.push_back(lane.sample);
  choose_position_.push_back(narrow(position + 1));
}

void Round::add_prompt_rows(Lane& lane, int32_t sequence) {
  const int64_t begin = lane.kv->length(), end = static_cast<int64_t>(lane.tokens->size());
  lane.rows = std::min(end - begin, prefill_chunk_);
  for (int64_t position = begin; position < begin + lane.rows; ++position) {
    add_row((*lane.tokens)[static_cast<size_t>(position)], position, position, sequence, position + 1);
    tail_begin_.push_back(narrow(static_cast<int64_t>(tail_slots_.size())));
  }
  if (lane.generates && begin + lane.rows == end) add_output(lane, end - 1);
}

// Node n of the tree sits at position S + depth(n) and in slot S + n; it sees the S committed positions and
// its own path.
void Round::add_tree_rows(Lane& lane, int32_t sequence) {
  const int64_t committed = lane.kv->length();
  const DraftTree& tree = lane.tree;
  lane.rows = tree.nodes;
  for (int64_t n = 0; n < tree.nodes; ++n) {
    const int64_t depth = tree.depth[static_cast<size_t>(n)];
    add_row(tree.token[static_cast<size_t>(n)], committed + depth, committed + n, sequence, committed);
    const size_t begin = tail_slots_.size();
    tail_slots_.resize(begin + static_cast<size_t>(depth) + 1);
    int32_t node = narrow(n);
    for (int64_t d = depth; d >= 0; --d) {
      tail_slots_[begin + static_cast<size_t>(d)] = narrow(committed + node);
      node = tree.parent[static_cast<size_t>(node)];
    }
    tail_begin_.push_back(narrow(static_cast<int64_t>(tail_slots_.size())));
    add_output(lane, committed + depth);
  }
}

void Round::build(const std::vector<Lane*>& lanes) {
  for (auto* list :
       {&token_, &position_, &slot_, &sequence_, &context_, &tail_slots_, &outputs_, &choose_position_}) {
    list->clear();
  }
  spec_.clear();
  tail_begin_.assign(1, 0);
  tables_.assign(lanes.size() * static_cast<size_t>(table_stride_), 0);
  for (size_t i = 0; i < lanes.size(); ++i) {
    const std::vector<int32_t>& blocks = lanes[i]->kv->blocks();
    REDRAFTER_CHECK(static_cast<int64_t>(blocks.size()) <= table_stride_);
    std::copy(blocks.begin(), blocks.end(), tables_.begin() + static_cast<std::ptrdiff_t>(i) * table_stride_);
    if (lanes[i]->decoding) {
      add_tree_rows(*lanes[i], narrow(static_cast<int64_t>(i)));
    } else {
      add_prompt_rows(*lanes[i], narrow(static_cast<int64_t>(i)));
    }
  }
}

Batch Round::batch() const {
  Batch b;
  b.rows = static_cast<int64_t>(token_.size());
  b.token = token_.data();
  b.position = position_.data();
  b.slot = slot_.data();
  b.sequence = sequence_.data();
  b.context = context_.data();
  b.tail_begin = tail_begin_.data();
  b.tail_slots = tail_slots_.data();
  b.block_tables = tables_.data();
  b.table_stride = table_stride_;
  return b;
}

void Round::choose(const Lane& lane, int64_t first_output, int64_t count) {
  const bool tree = lane.decoding;
  model_.backend().sample(
      {model_.logits() + first_output * model_.config().vocab, spec_.data() + first_output,
       choose_position_.data() + first_output, chosen_.data() + first_output, sample_scratch_.as<void>(),
       count, model_.config().vocab, tree ? lane.tree.token.data() : nullptr,
       tree ? lane.tree.parent.data() : nullptr},
      stream_);
}

// path_[0 .. path_length) are the outputs (relative to first_output) whose choices are the run of this round.
void Round::emit(Lane& lane, int64_t first_output, int64_t path_length) {
  for (int64_t i = 0; i < path_length; ++i) {
    lane.emitted.push_back(chosen_[static_cast<size_t>(first_output + path_[static_cast<size_t>(i)])]);
  }
  if (lane.emitted.back() < 0) {
    lane.failed = true;
    lane.emitted.clear();
    return;
  }
  const Cut cut = cut_run(lane.emitted, lane.max_tokens - lane.generated, lane.stop);
  lane.emitted.resize(static_cast<size_t>(cut.keep));
  lane.finish = cut.finish;
  lane.accepted = std::min(cut.keep, path_length - 1);
  lane.generated += cut.keep;
  lane.tokens->insert(lane.tokens->end(), lane.emitted.begin(), lane.emitted.end());

  const int64_t hidden = model_.config().hidden;
  const int64_t last = first_output + path_[static_cast<size_t>(path_length - 1)];
  model_.backend().upload(lane.hidden_state.as<void>(), model_.hidden() + last * hidden,
                          lane.hidden_state.bytes(), stream_);
  if (lane.logprobs < 0) return;
  path_rows_.clear();
  for (int64_t i = 0; i < cut.keep; ++i)
    path_rows_.push_back(narrow(first_output) + path_[static_cast<size_t>(i)]);
  lane.logprob.resize(static_cast<size_t>(cut.keep));
  lane.top_token.resize(static_cast<size_t>(cut.keep * lane.logprobs));
  lane.top_logprob.resize(static_cast<size_t>(cut.keep * lane.logprobs));
  model_.backend().logprob(
      {model_.logits(), path_rows_.data(), lane.emitted.data(), lane.logprob.data(), lane.top_token.data(),
       lane.top_logprob.data(), cut.keep, model_.config().vocab, lane.logprobs},
      stream_);
}

void Round::settle_prompt(Lane& lane, int64_t output) {
  lane.kv->commit(lane.kv->length() + lane.rows);
  if (!lane.generates || lane.kv->length() < static_cast<int64_t>(lane.tokens->size())) return;
  path_[0] = 0;
  emit(lane, output, 1);
  lane.decoding = true;
}

void Round::settle_tree(Lane& lane, int64_t first_output) {
  const int64_t committed = lane.kv->length();
  int32_t path_length = 0;
  model_.backend().tree_accept({lane.tree.token.data(), lane.tree.parent.data(),
                                chosen_.data() + first_output, lane.tree.nodes, path_.data(), &path_length},
                               stream_);
  path_rows_.clear();
  for (int32_t i = 0; i < path_length; ++i)
    path_rows_.push_back(narrow(committed) + path_[static_cast<size_t>(i)]);
  cache_.compact(lane.kv->blocks().data(), path_rows_.data(), committed, path_length);
  emit(lane, first_output, path_length);
  // The newest token is the next root: its KV, if a cut made it one of the path, does not count yet.
  lane.kv->commit(std::min(committed + path_length, static_cast<int64_t>(lane.tokens->size()) - 1));
}

RoundTimes Round::run(const std::vector<Lane*>& lanes) {
  const auto start = Clock::now();
  for (Lane* lane : lanes) {
    lane->emitted.clear();
    lane->logprob.clear();
    lane->top_token.clear();
    lane->top_logprob.clear();
    lane->accepted = 0;
    if (lane->decoding) draft(*lane);
  }
  const auto drafted = Clock::now();
  build(lanes);
  const auto built = Clock::now();
  model_.forward(batch(), cache_.layers(), outputs_.data(), static_cast<int64_t>(outputs_.size()), stream_);
  chosen_.resize(outputs_.size());
  int64_t output = 0;
  for (Lane* lane : lanes) {
    const bool complete = lane->kv->length() + lane->rows == static_cast<int64_t>(lane->tokens->size());
    const int64_t count = lane->decoding ? lane->rows : lane->generates && complete ? 1 : 0;
    if (count > 0) choose(*lane, output, count);
    if (lane->decoding) {
      settle_tree(*lane, output);
    } else {
      settle_prompt(*lane, output);
    }
    output += count;
  }
  return {ms_between(start, drafted), ms_between(built, Clock::now())};
}

}  // namespace redrafter
