#include "spec/round.h"

#include <algorithm>
#include <array>
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
      batch_(batch_limits(model), model.backend()) {
  Arena measure;
  carve(measure, model);
  workspace_ = DeviceBuffer(model.backend(), measure.used());
  Arena arena(workspace_.as<void>(), workspace_.bytes());
  device_ = carve(arena, model);
  results_.resize(static_cast<size_t>(3 * model.limits().rows));
}

RoundBatch::Limits Round::batch_limits(const Model& model) {
  const ForwardLimits& limits = model.limits();
  return {limits.rows, kMaxBeamLength,
          (limits.positions + max_tree_nodes(kMaxBeamWidth, kMaxBeamLength)) / kBlockTokens + 1};
}

Round::Arrays Round::carve(Arena& arena, const Model& model) {
  const int64_t rows = model.limits().rows, run = kMaxBeamLength + 1;
  Arrays a{};
  a.chosen = arena.take<int32_t>(3 * rows);
  a.path = a.chosen + rows;  // one copy brings both
  a.from = arena.take<int32_t>(run);
  a.logprob_row = arena.take<int32_t>(run);
  a.logprob_token = arena.take<int32_t>(run);
  a.logprob = arena.take<float>(run);
  a.top_token = arena.take<int32_t>(run * kMaxLogprobs);
  a.top_logprob = arena.take<float>(run * kMaxLogprobs);
  a.sample_scratch = arena.take<uint8_t>(model.limits().threads * sample_scratch(model.config().vocab));
  return a;
}

int64_t Round::workspace_bytes(const Model& model) {
  Arena measure;
  carve(measure, model);
  return static_cast<int64_t>(measure.used()) + RoundBatch::bytes(batch_limits(model));
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

void Round::add_prompt_rows(Lane& lane) {
  const int64_t begin = lane.kv->length(), end = static_cast<int64_t>(lane.tokens->size());
  lane.rows = std::min(end - begin, prefill_chunk_);
  for (int64_t position = begin; position < begin + lane.rows; ++position) {
    batch_.add_row((*lane.tokens)[static_cast<size_t>(position)], position, position, position + 1, -1);
  }
  if (lane.generates && begin + lane.rows == end) batch_.add_output(lane.sample);
}

// Node n of the tree sits at position S + depth(n) and in slot S + n; it sees the S committed positions and
// its own path.
void Round::add_tree_rows(Lane& lane) {
  const int64_t committed = lane.kv->length();
  const DraftTree& tree = lane.tree;
  lane.rows = tree.nodes;
  std::array<int32_t, kMaxBeamLength + 1> path{};
  for (int64_t n = 0; n < tree.nodes; ++n) {
    const int64_t depth = tree.depth[static_cast<size_t>(n)];
    int32_t node = narrow(n);
    for (int64_t d = depth; d >= 0; --d) {
      path[static_cast<size_t>(d)] = node;
      node = tree.parent[static_cast<size_t>(node)];
    }
    batch_.add_row(tree.token[static_cast<size_t>(n)], committed + depth, committed + n, committed,
                   tree.parent[static_cast<size_t>(n)]);
    for (int64_t d = 0; d <= depth; ++d) batch_.add_tail(committed + path[static_cast<size_t>(d)]);
    batch_.add_output(lane.sample);
  }
}

void Round::build(const std::vector<Lane*>& lanes) {
  batch_.clear();
  for (size_t i = 0; i < lanes.size(); ++i) {
    Lane& lane = *lanes[i];
    lane.first_row = batch_.rows();
    lane.first_output = batch_.outputs();
    lane.first_path = lane.first_output + static_cast<int64_t>(i);
    batch_.add_sequence(lane.kv->blocks());
    if (lane.decoding) {
      add_tree_rows(lane);
    } else {
      add_prompt_rows(lane);
    }
    lane.outputs = batch_.outputs() - lane.first_output;
  }
  batch_.upload(stream_);
}

// The target's token at every node that the walk reaches, and the walk.
void Round::choose(Lane& lane) {
  const int32_t* token = lane.decoding ? batch_.tokens() + lane.first_row : nullptr;
  const int32_t* parent = lane.decoding ? batch_.parents() + lane.first_row : nullptr;
  int32_t *chosen = device_.chosen + lane.first_output, *path = device_.path + lane.first_path;
  const int64_t vocab = model_.config().vocab;
  model_.backend().sample({model_.logits() + lane.first_output * vocab, batch_.specs() + lane.first_output,
                           batch_.choose_positions() + lane.first_output, chosen, device_.sample_scratch,
                           lane.outputs, vocab, token, parent},
                          stream_);
  if (!lane.decoding) return;
  model_.backend().tree_accept({token, parent, chosen, lane.rows, path + 1, path}, stream_);
}

// path_ holds the outputs (relative to the lane's first) whose choices are the run of this round.
void Round::emit(Lane& lane) {
  for (const int32_t node : path_)
    lane.emitted.push_back(results_[static_cast<size_t>(lane.first_output + node)]);
  if (lane.emitted.back() < 0) {
    lane.failed = true;
    lane.emitted.clear();
    return;
  }
  const Cut cut = cut_run(lane.emitted, lane.max_tokens - lane.generated, lane.stop);
  lane.emitted.resize(static_cast<size_t>(cut.keep));
  lane.finish = cut.finish;
  lane.accepted = std::min(cut.keep, static_cast<int64_t>(path_.size()) - 1);
  lane.generated += cut.keep;
  lane.tokens->insert(lane.tokens->end(), lane.emitted.begin(), lane.emitted.end());

  const int64_t last = lane.first_output + path_.back();
  model_.backend().copy(lane.hidden_state.as<void>(), model_.hidden() + last * model_.config().hidden,
                        lane.hidden_state.bytes(), stream_);
  if (lane.logprobs >= 0) add_logprobs(lane);
}

void Round::add_logprobs(Lane& lane) {
  const Backend& backend = model_.backend();
  const size_t count = lane.emitted.size(), top = count * static_cast<size_t>(lane.logprobs);
  slots_.clear();
  for (size_t i = 0; i < count; ++i) slots_.push_back(narrow(lane.first_output) + path_[i]);
  backend.upload(device_.logprob_row, slots_.data(), count * sizeof(int32_t), stream_);
  backend.upload(device_.logprob_token, lane.emitted.data(), count * sizeof(int32_t), stream_);
  backend.logprob(
      {model_.logits(), device_.logprob_row, device_.logprob_token, device_.logprob, device_.top_token,
       device_.top_logprob, static_cast<int64_t>(count), model_.config().vocab, lane.logprobs},
      stream_);
  lane.logprob.resize(count);
  lane.top_token.resize(top);
  lane.top_logprob.resize(top);
  backend.download(lane.logprob.data(), device_.logprob, count * sizeof(float), stream_);
  backend.download(lane.top_token.data(), device_.top_token, top * sizeof(int32_t), stream_);
  backend.download(lane.top_logprob.data(), device_.top_logprob, top * sizeof(float), stream_);
}

void Round::settle_prompt(Lane& lane) {
  lane.kv->commit(lane.kv->length() + lane.rows);
  if (lane.outputs == 0) return;
  path_.assign(1, 0);
  emit(lane);
  lane.decoding = true;
}

void Round::settle_tree(Lane& lane, int64_t sequence) {
  const auto path = results_.begin() + static_cast<std::ptrdiff_t>(model_.limits().rows + lane.first_path);
  path_.assign(path + 1, path + 1 + *path);
  compact(lane, sequence);
  const int64_t committed = lane.kv->length();
  emit(lane);
  // The newest token is the next root: its KV, if a cut made it one of the path, does not count yet.
  lane.kv->commit(std::min(committed + static_cast<int64_t>(path_.size()),
                           static_cast<int64_t>(lane.tokens->size()) - 1));
}

// The accepted nodes move to where plain decoding would have put them.
void Round::compact(Lane& lane, int64_t sequence) {
  const int64_t committed = lane.kv->length();
  slots_.clear();
  for (const int32_t node : path_) slots_.push_back(narrow(committed) + node);
  if (slots_.back() == committed + static_cast<int64_t>(slots_.size()) - 1) return;  // they are there
  model_.backend().upload(device_.from, slots_.data(), slots_.size() * sizeof(int32_t), stream_);
  cache_.compact(batch_.blocks(sequence), device_.from, committed, static_cast<int64_t>(slots_.size()));
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
  model_.forward(batch_.batch(), cache_.layers(), batch_.output_rows(), batch_.outputs(), stream_);
  for (Lane* lane : lanes) {
    if (lane->outputs > 0) choose(*lane);
  }
  if (batch_.outputs() > 0) {
    const size_t used = static_cast<size_t>(model_.limits().rows + batch_.outputs()) + lanes.size();
    model_.backend().download(results_.data(), device_.chosen, used * sizeof(int32_t), stream_);
  }
  for (size_t i = 0; i < lanes.size(); ++i) {
    if (lanes[i]->decoding) {
      settle_tree(*lanes[i], static_cast<int64_t>(i));
    } else {
      settle_prompt(*lanes[i]);
    }
  }
  return {ms_between(start, drafted), ms_between(built, Clock::now())};
}

}  // namespace redrafter
