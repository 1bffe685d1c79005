#include "spec/round.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <tuple>

#include "base/check.h"

namespace redrafter {
namespace {

using Clock = std::chrono::steady_clock;

double ms_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

// Lanes of a group that has so many: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ...
int64_t bucket(int64_t lanes) {
  int64_t power = 1;
  while (2 * power <= lanes) power *= 2;
  if (lanes == power || lanes <= 2) return lanes;
  return 2 * lanes <= 3 * power ? power + power / 2 : 2 * power;
}

// Tokens of the prompt that are not in the cache yet.
int64_t prompt_left(const Lane& lane) {
  return static_cast<int64_t>(lane.tokens->size()) - lane.kv->length();
}

// Whether the lane's prompt ends in this pass.
bool ends_prompt(const Lane& lane) { return prompt_left(lane) <= lane.prompt_rows; }

}  // namespace

Round::Round(Model& model, KvCache& cache, Drafter* drafter, Stream& stream, MaskExchange* exchange)
    : model_(model),
      cache_(cache),
      drafter_(drafter),
      stream_(stream),
      batch_(batch_limits(model), model.backend()),
      hidden_(model.backend(), model.limits().rows, model.config().hidden),
      control_(model.backend(), model.limits().rows),
      masks_(model.backend(), model.limits().rows, model.config().vocab, exchange),
      draft_masks_(model.backend(), model.limits().rows, model.config().vocab, masks_, stream),
      host_results_(model.backend(), results_capacity(model)),
      logprobs_(model.backend(), model.limits().rows, model.config().vocab),
      graphs_(model.backend()) {
  Arena measure;
  carve(measure, model);
  workspace_ = DeviceBuffer(model.backend(), measure.used());
  Arena arena(workspace_.as<void>(), workspace_.bytes());
  device_ = carve(arena, model);
}

RoundBatch::Limits Round::batch_limits(const Model& model) {
  const ForwardLimits& limits = model.limits();
  return {limits.rows, kRun,
          (limits.positions + max_tree_nodes(kMaxBeamWidth, kMaxBeamLength)) / kBlockTokens + 1};
}

Round::Results Round::carve_results(Arena& arena, int64_t lanes) {
  Results r{};
  r.nodes = arena.take<int32_t>(lanes);
  r.path_length = arena.take<int32_t>(lanes);
  r.path = arena.take<int32_t>(lanes * kRun);
  r.emitted = arena.take<int32_t>(lanes * kRun);
  return r;
}

size_t Round::results_capacity(const Model& model) {
  Arena measure;
  carve_results(measure, model.limits().rows);
  return measure.used();
}

Round::Arrays Round::carve(Arena& arena, const Model& model) {
  const int64_t rows = model.limits().rows;
  Arrays a{};
  a.results = arena.take<uint8_t>(static_cast<int64_t>(results_capacity(model)));
  for (int32_t** list : {&a.tree_token, &a.tree_parent, &a.tree_depth, &a.chosen})
    *list = arena.take<int32_t>(rows);
  a.sample_scratch = arena.take<uint8_t>(model.limits().threads * sample_scratch(model.config().vocab));
  return a;
}

int64_t Round::workspace_bytes(const Model& model) {
  Arena measure;
  carve(measure, model);
  return static_cast<int64_t>(measure.used()) + RoundBatch::bytes(batch_limits(model)) +
         HiddenRows::bytes(model.limits().rows, model.config().hidden) +
         Logprobs::bytes(model.limits().rows, model.config().vocab);
}

int64_t Round::rows_wanted(const Lane& lane) const {
  return lane.decoding ? budget(lane) : prompt_left(lane);
}

// A round emits at most one token more than its tree is deep, so deeper trees than that are not drafted.
int64_t Round::draft_length(const Lane& lane) const {
  if (!lane.decoding || drafter_ == nullptr || lane.beam_width <= 0) return 0;
  return std::max<int64_t>(0, std::min(lane.beam_length, lane.max_tokens - lane.generated - 1));
}

// Nodes of the lane's tree at most.
int64_t Round::budget(const Lane& lane) const {
  const int64_t all = max_tree_nodes(lane.beam_width, draft_length(lane));
  return lane.beam_budget > 0 ? std::min(lane.beam_budget, all) : all;
}

RoundShape Round::last_shape() const {
  RoundShape shape;
  for (const Group& g : groups_) {
    if (g.width > 0) shape.drafts.push_back({g.lanes, g.width, g.length});
  }
  shape.rows = batch_.rows();
  return shape;
}

// Into the order of RoundBatch, and lanes of one shape together.
void Round::sort(const std::vector<Lane*>& lanes) {
  const auto rank = [this](const Lane* lane) {
    if (draft_length(*lane) > 0) return 0;
    if (lane->decoding) return 1;
    return lane->generates && ends_prompt(*lane) ? 2 : 3;
  };
  const auto key = [&](const Lane* lane) {
    const bool drafts = rank(lane) == 0;
    return std::tuple(rank(lane), drafts ? lane->beam_width : 0, drafts ? draft_length(*lane) : 0,
                      drafts ? budget(*lane) : 1);
  };
  order_ = lanes;
  std::stable_sort(order_.begin(), order_.end(), [&](Lane* a, Lane* b) { return key(a) < key(b); });
  groups_.clear();
  choosing_ = 0;
  for (const Lane* lane : order_) {
    const auto [place, width, length, nodes] = key(lane);
    if (place < 3) ++choosing_;
    if (place > 1) continue;
    if (groups_.empty() || groups_.back().width != width || groups_.back().length != length ||
        groups_.back().nodes != nodes) {
      groups_.push_back({0, width, length, nodes});
    }
    ++groups_.back().lanes;
  }
  all_decode_ = !order_.empty() && order_.back()->decoding;
}

// Lanes of a group are filled up to the next bucket, so that batches whose size changes share few graphs; as
// far as the model's rows go.
void Round::pad() {
  int64_t rows_left = model_.limits().rows;
  for (const Group& g : groups_) rows_left -= g.lanes * g.nodes;
  auto end = order_.begin();
  for (Group& g : groups_) {
    const int64_t more = std::min(bucket(g.lanes) - g.lanes, rows_left / g.nodes);
    end = order_.insert(end + g.lanes, static_cast<size_t>(more), nullptr) + more;
    g.lanes += more;
    choosing_ += more;
    inert_rows_ += more * g.nodes;
    rows_left -= more * g.nodes;
  }
}

void Round::place_groups() {
  drafting_ = 0;
  int64_t lanes = 0, nodes = 0;
  for (Group& g : groups_) {
    g.first = lanes;
    g.first_node = nodes;
    lanes += g.lanes;
    nodes += g.lanes * g.nodes;
    if (g.width > 0) drafting_ = lanes;
  }
}

// For as many lanes as there are, so that one small copy brings them all.
void Round::place_results() {
  const int64_t lanes = static_cast<int64_t>(order_.size());
  Arena measure;
  carve_results(measure, lanes);
  results_bytes_ = measure.used();
  Arena host(host_results_.data(), measure.used()), device(device_.results, measure.used());
  results_ = carve_results(host, lanes);
  device_results_ = carve_results(device, lanes);
}

void Round::fill_lanes() {
  batch_.clear();
  for (const Lane* lane : order_) {
    if (lane == nullptr) {
      batch_.add_padding_lane();
    } else {
      batch_.add_lane(lane->tokens->back(), lane->hidden.row(), lane->kv->length(), lane->kv->blocks());
    }
  }
}

void Round::draft() {
  const RoundBatch::Arrays& b = batch_.device();
  for (const Group& g : groups_) {
    if (g.width == 0) continue;
    drafter_->propose({hidden_.data(), b.hidden_row + g.first, b.root + g.first, g.lanes, g.width, g.length,
                       g.nodes, -std::numeric_limits<float>::infinity(), draft_masks_.from(g.first), g.first,
                       draft_masks_.has_grammar(g.first, g.lanes) ? &draft_masks_ : nullptr},
                      {device_.tree_token + g.first_node, device_.tree_parent + g.first_node,
                       device_.tree_depth + g.first_node, device_results_.nodes + g.first});
  }
}

void Round::add_prompt(const Lane& lane) {
  const int64_t begin = lane.kv->length();
  for (int64_t position = begin; position < begin + lane.rows; ++position) {
    batch_.add_prompt_row((*lane.tokens)[static_cast<size_t>(position)], position);
  }
  if (lane.generates && ends_prompt(lane)) batch_.add_output(lane.sample);
}

// A tree gets as many rows as it has nodes where that is known, else as many as it may have.
void Round::fill_rows(const int32_t* nodes) {
  size_t at = 0;
  for (const Group& g : groups_) {
    for (const size_t end = at + static_cast<size_t>(g.lanes); at < end; ++at) {
      if (Lane* lane = order_[at]; lane != nullptr) {
        lane->rows = g.width > 0 && nodes != nullptr ? nodes[at] : g.nodes;
        if (g.width > 0) {
          batch_.add_tree(lane->rows, lane->sample);
        } else {
          batch_.add_root(lane->sample);
        }
      }
      batch_.end_lane();
    }
  }
  for (; at < order_.size(); ++at) {
    Lane& lane = *order_[at];
    lane.rows = std::min(prompt_left(lane), lane.prompt_rows);
    REDRAFTER_CHECK(lane.rows > 0);
    add_prompt(lane);
    batch_.end_lane();
  }
  batch_.add_inert_rows(inert_rows_);
  fill_control();
}

// Sent here and not with the batch, as its size changes from round to round, and that of a copy in a graph
// must not.
void Round::fill_control() {
  control_.clear();
  for (int64_t i = 0; i < choosing_; ++i) {
    const Lane* lane = order_[static_cast<size_t>(i)];
    if (lane == nullptr || lane->control == nullptr || !lane->control->acts()) {
      control_.add_lane();
    } else {
      control_.add_lane(*lane->control, i < drafting_ ? lane->rows : 1, lane->logprobs >= 0);
    }
  }
  control_.upload(stream_);
}

void Round::place_trees() {
  const Backend& backend = model_.backend();
  const RoundBatch::Arrays& b = batch_.device();
  for (const Group& g : groups_) {
    if (g.width == 0) continue;
    backend.tree_rows({device_.tree_token + g.first_node, device_.tree_parent + g.first_node,
                       device_.tree_depth + g.first_node, device_results_.nodes + g.first, g.lanes, g.nodes,
                       b.begin + g.first, b.committed + g.first, g.first, kRun, b.token, b.position, b.slot,
                       b.sequence, b.context, b.tail_begin, b.tail_slots, b.choose_position, b.parent},
                      stream_);
  }
}

void Round::forward() {
  Batch batch = batch_.batch();
  if (!model_.backend().host_memory) batch.max_positions = positions_bound();
  model_.forward(batch, cache_.layers(), batch_.device().output, batch_.outputs(), stream_);
}

// The walk down the trees by the target's own tokens, and what it leaves: KV and hidden states of the paths.
void Round::accept() {
  const Backend& backend = model_.backend();
  const RoundBatch::Arrays& b = batch_.device();
  const Results& r = device_results_;
  backend.tree_accept(
      {b.token, b.parent, device_.chosen, b.begin, choosing_, kRun, r.path, r.emitted, r.path_length},
      stream_);
  if (drafting_ > 0) {
    cache_.compact(b.tables, batch_.limits().table_stride, b.committed,
                   {r.path, r.path_length, drafting_, kRun});
  }
  backend.keep_hidden({model_.hidden(), b.begin, r.path, r.path_length, b.hidden_row, hidden_.data(),
                       choosing_, kRun, model_.config().hidden},
                      stream_);
}

// The target's own tokens. Lanes with control choose from changed logits, lanes with masks from some of them;
// log-probabilities are those of all logits as they were.
void Round::choose() {
  const Backend& backend = model_.backend();
  const RoundBatch::Arrays& b = batch_.device();
  AdjustParams control = control_.params();
  control.logits = model_.logits();
  control.node_token = b.token, control.node_parent = b.parent, control.begin = b.begin;
  control.rows = batch_.outputs(), control.vocab = model_.config().vocab;
  if (control_.any()) backend.adjust(control, stream_);
  SampleParams sample{model_.logits(),
                      b.spec,
                      b.choose_position,
                      device_.chosen,
                      device_.sample_scratch,
                      batch_.outputs(),
                      model_.config().vocab,
                      b.token,
                      b.parent,
                      b.begin,
                      choosing_};
  masks_.apply(sample);
  backend.sample(sample, stream_);
  if (control_.keeps_logits()) backend.adjust_undo(control, stream_);
}

// What a round makes known of its lanes, to the host.
void Round::fetch_results() {
  if (choosing_ == 0) return;
  model_.backend().download_later(host_results_.data(), device_.results, results_bytes_, stream_);
}

// Doubled from 256 on: launches depend on it, and a graph of them should last.
int64_t Round::positions_bound() const {
  int64_t bound = 256;
  while (bound < batch_.max_positions()) bound *= 2;
  return bound;
}

// All of a round that the backend does, from the host's arrays to the host's: what it launches depends on
// shape() alone.
void Round::work(Part part) {
  if (part == Part::kAll || part == Part::kDrafts) {
    batch_.upload(stream_);
    draft();
    place_trees();
  }
  if (part == Part::kAll || part == Part::kForward) forward();
  if (part == Part::kAll || part == Part::kChoice) {
    if (choosing_ == 0) return;
    choose();
    accept();
    fetch_results();
  }
}

// Control works on arrays that may have moved since the graphs that know them were recorded.
RoundGraphs::Shape Round::shape(Part part) const {
  RoundGraphs::Shape shape{positions_bound(), control_.any() ? control_.moves() : 0,
                           control_.keeps_logits() ? 1 : 0, static_cast<int64_t>(part),
                           draft_masks_.any() ? 1 : 0};
  for (const Group& g : groups_) shape.insert(shape.end(), {g.lanes, g.width, g.length, g.nodes});
  return shape;
}

void Round::fail(Lane& lane) {
  lane.failed = true;
  lane.emitted.clear();
}

void Round::emit(Lane& lane, int64_t index) {
  const int32_t* emitted = results_.emitted + index * kRun;
  const int64_t path_length = results_.path_length[index];
  REDRAFTER_CHECK(path_length >= 1 && path_length <= kRun);
  lane.emitted.assign(emitted, emitted + path_length);
  if (lane.grammar != nullptr && !lane.grammar->error.empty()) return fail(lane);
  // Behind a text that is complete nothing was chosen.
  const bool complete =
      masks_.ends(batch_.first_output(index) + results_.path[index * kRun + path_length - 1]);
  if (complete) lane.emitted.pop_back();
  const Cut cut = cut_run(lane.emitted, lane.max_tokens - lane.generated, lane.stop);
  lane.emitted.resize(static_cast<size_t>(cut.keep));
  if (!lane.emitted.empty() && lane.emitted.back() < 0) return fail(lane);
  lane.finish = complete && cut.finish == Finish::kNone ? Finish::kStop : cut.finish;
  lane.accepted = std::min(cut.keep, path_length - 1);
  lane.generated += cut.keep;
  lane.tokens->insert(lane.tokens->end(), lane.emitted.begin(), lane.emitted.end());
  if (lane.control != nullptr) lane.control->add(lane.emitted);
  if (lane.grammar != nullptr) {
    auto& unmatched = lane.grammar->unmatched;
    unmatched.insert(unmatched.end(), lane.emitted.begin(), lane.emitted.end());
  }
  if (lane.logprobs < 0) return;
  logprobs_.want({lane.logprobs, &lane.logprob, &lane.top_token, &lane.top_logprob});
  for (size_t i = 0; i < lane.emitted.size(); ++i) {
    logprobs_.add_token(batch_.first_output(index) + results_.path[index * kRun + static_cast<int64_t>(i)],
                        lane.emitted[i]);
  }
}

void Round::settle_prompt(Lane& lane, int64_t index) {
  lane.kv->commit(lane.kv->length() + lane.rows);
  if (index >= choosing_) return;
  emit(lane, index);
  lane.decoding = true;
}

void Round::settle_tree(Lane& lane, int64_t index) {
  const int64_t committed = lane.kv->length();
  if (index < drafting_) {
    lane.draft_nodes = results_.nodes[index] - 1;
    lane.draft_depth = lane.draft_nodes > 0 ? draft_length(lane) : 0;  // beams are equally long
    // Nodes of the first beam come first.
    const int32_t* path = results_.path + index * kRun;
    while (lane.on_first_beam < results_.path_length[index] - 1 &&
           path[lane.on_first_beam + 1] == lane.on_first_beam + 1) {
      ++lane.on_first_beam;
    }
  }
  emit(lane, index);
  // The newest token is the next root: its KV, if a cut made it one of the path, does not count yet.
  lane.kv->commit(
      std::min(committed + results_.path_length[index], static_cast<int64_t>(lane.tokens->size()) - 1));
}

RoundTimes Round::run(const std::vector<Lane*>& lanes, const std::function<void()>& meanwhile) {
  for (Lane* lane : lanes) {
    lane->emitted.clear();
    lane->logprob.clear();
    lane->top_token.clear();
    lane->top_logprob.clear();
    lane->accepted = lane->draft_nodes = lane->draft_depth = lane->on_first_beam = 0;
  }
  sort(lanes);
  inert_rows_ = 0;
  if (all_decode_ && model_.backend().begin_capture != nullptr) pad();
  place_groups();
  place_results();
  fill_lanes();
  fill_draft_masks();
  masks_.clear();
  const RoundTimes times = model_.backend().host_memory ? run_in_steps() : run_at_once(meanwhile);
  logprobs_.clear();
  for (size_t i = 0; i < order_.size(); ++i) {
    Lane* lane = order_[i];
    if (lane == nullptr) continue;
    if (lane->decoding) {
      settle_tree(*lane, static_cast<int64_t>(i));
    } else {
      settle_prompt(*lane, static_cast<int64_t>(i));
    }
  }
  logprobs_.compute(model_.logits(), stream_);
  settle_grammars();
  return times;
}

// Looking at the backend's memory costs nothing: the trees get the rows that they need.
RoundTimes Round::run_in_steps() {
  const auto start = Clock::now();
  batch_.upload_lanes(stream_);
  draft();
  const auto drafted = Clock::now();
  model_.backend().download(results_.nodes, device_results_.nodes,
                            static_cast<size_t>(drafting_) * sizeof(int32_t), stream_);
  fill_rows(results_.nodes);
  batch_.upload(stream_);
  place_trees();
  const auto built = Clock::now();
  if (has_masks()) ask_masks();
  forward();
  if (masks_.any()) masks_.receive(batch_.outputs(), stream_);
  work(Part::kChoice);
  return {ms_between(start, drafted), ms_between(built, Clock::now())};
}

// One copy there, one back, and nothing between them that the host would have to know: it waits once. Rounds
// that only decode are one launch, too, where the backend has graphs.
RoundTimes Round::run_at_once(const std::function<void()>& meanwhile) {
  const auto start = Clock::now();
  fill_rows(nullptr);
  if (has_masks()) {
    launch_masked(meanwhile);
  } else {
    launch(Part::kAll);
    run_meanwhile(meanwhile);
  }
  model_.backend().wait(stream_);
  return {0.0, ms_between(start, Clock::now())};
}

void Round::launch(Part part) {
  if (all_decode_ && model_.backend().begin_capture != nullptr) {
    graphs_.run(shape(part), stream_, [this, part] { work(part); });
  } else {
    work(part);
  }
}

// Masks are made while the forward pass runs, from trees that the host has to know before. So there are three
// launches, and the host waits for the first of them, too. Where a lane that drafts has a grammar, that one
// is launched op by op, as the host has its part in each step.
void Round::launch_masked(const std::function<void()>& meanwhile) {
  if (draft_masks_.has_grammar(0, drafting_)) {
    work(Part::kDrafts);
  } else {
    launch(Part::kDrafts);
  }
  ask_masks();
  launch(Part::kForward);
  run_meanwhile(meanwhile);
  masks_.receive(batch_.outputs(), stream_);
  launch(Part::kChoice);
}

void Round::run_meanwhile(const std::function<void()>& meanwhile) {
  try {
    if (meanwhile) meanwhile();
  } catch (...) {
    model_.backend().wait(stream_);  // the work is on its way, on memory that may go with this
    throw;
  }
}

}  // namespace redrafter
