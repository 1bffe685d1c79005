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

// Whether the lane's prompt, or what is left of it, ends in a pass of at most `chunk` of its rows.
bool ends_prompt(const Lane& lane, int64_t chunk) {
  return static_cast<int64_t>(lane.tokens->size()) - lane.kv->length() <= chunk;
}

}  // namespace

Round::Round(Model& model, KvCache& cache, Drafter* drafter, Stream& stream, int64_t prefill_chunk)
    : model_(model),
      cache_(cache),
      drafter_(drafter),
      stream_(stream),
      prefill_chunk_(prefill_chunk),
      batch_(batch_limits(model), model.backend()),
      hidden_(model.backend(), model.limits().rows, model.config().hidden),
      host_results_(model.backend(), results_capacity(model)) {
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
  a.logprob_row = arena.take<int32_t>(kRun);
  a.logprob_token = arena.take<int32_t>(kRun);
  a.logprob = arena.take<float>(kRun);
  const int64_t top = std::max(kRun * kLogprobsAtOnce, model.config().vocab);
  a.top_token = arena.take<int32_t>(top);
  a.top_logprob = arena.take<float>(top);
  a.sample_scratch = arena.take<uint8_t>(model.limits().threads * sample_scratch(model.config().vocab));
  return a;
}

int64_t Round::workspace_bytes(const Model& model) {
  Arena measure;
  carve(measure, model);
  return static_cast<int64_t>(measure.used()) + RoundBatch::bytes(batch_limits(model)) +
         HiddenRows::bytes(model.limits().rows, model.config().hidden);
}

int64_t Round::rows_wanted(const Lane& lane) const {
  if (lane.decoding) return budget(lane);
  return std::min(static_cast<int64_t>(lane.tokens->size()) - lane.kv->length(), prefill_chunk_);
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
  for (const Group& g : groups_) shape.drafts.push_back({g.lanes, g.width, g.length});
  shape.rows = batch_.rows();
  return shape;
}

// Into the order of RoundBatch, and lanes of one shape together.
void Round::sort(const std::vector<Lane*>& lanes) {
  const auto rank = [this](const Lane* lane) {
    if (draft_length(*lane) > 0) return 0;
    if (lane->decoding) return 1;
    return lane->generates && ends_prompt(*lane, prefill_chunk_) ? 2 : 3;
  };
  const auto key = [&](const Lane* lane) {
    const bool drafts = rank(lane) == 0;
    return std::tuple(rank(lane), drafts ? lane->beam_width : 0, drafts ? draft_length(*lane) : 0,
                      drafts ? budget(*lane) : 1);
  };
  order_ = lanes;
  std::stable_sort(order_.begin(), order_.end(), [&](Lane* a, Lane* b) { return key(a) < key(b); });
  groups_.clear();
  drafting_ = choosing_ = 0;
  int64_t nodes = 0;
  for (const Lane* lane : order_) {
    if (rank(lane) < 3) ++choosing_;
    if (rank(lane) > 0) continue;
    const int64_t width = lane->beam_width, length = draft_length(*lane), most = budget(*lane);
    if (groups_.empty() || groups_.back().width != width || groups_.back().length != length ||
        groups_.back().budget != most) {
      groups_.push_back({drafting_, 0, width, length, most, nodes});
    }
    ++groups_.back().lanes;
    ++drafting_;
    nodes += most;
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
    batch_.add_lane(lane->tokens->back(), lane->hidden.row(), lane->kv->length(), lane->kv->blocks());
  }
}

void Round::draft() {
  const RoundBatch::Arrays& b = batch_.device();
  for (const Group& g : groups_) {
    drafter_->propose({hidden_.data(), b.hidden_row + g.first, b.root + g.first, g.lanes, g.width, g.length,
                       g.budget, -std::numeric_limits<float>::infinity()},
                      {device_.tree_token + g.first_node, device_.tree_parent + g.first_node,
                       device_.tree_depth + g.first_node, device_results_.nodes + g.first});
  }
}

void Round::add_prompt(const Lane& lane) {
  const int64_t begin = lane.kv->length();
  for (int64_t position = begin; position < begin + lane.rows; ++position) {
    batch_.add_prompt_row((*lane.tokens)[static_cast<size_t>(position)], position);
  }
  if (lane.generates && ends_prompt(lane, prefill_chunk_)) batch_.add_output(lane.sample);
}

// A tree gets as many rows as it has nodes where that is known, else as many as it may have.
void Round::fill_rows(const int32_t* nodes) {
  for (size_t i = 0; i < order_.size(); ++i) {
    Lane& lane = *order_[i];
    if (static_cast<int64_t>(i) < drafting_) {
      lane.rows = nodes != nullptr ? nodes[i] : budget(lane);
      batch_.add_tree(lane.rows, lane.sample);
    } else if (lane.decoding) {
      lane.rows = 1;
      batch_.add_root(lane.sample);
    } else {
      lane.rows = rows_wanted(lane);
      add_prompt(lane);
    }
    batch_.end_lane();
  }
}

void Round::place_trees() {
  const Backend& backend = model_.backend();
  const RoundBatch::Arrays& b = batch_.device();
  for (const Group& g : groups_) {
    backend.tree_rows({device_.tree_token + g.first_node, device_.tree_parent + g.first_node,
                       device_.tree_depth + g.first_node, device_results_.nodes + g.first, g.lanes, g.budget,
                       b.begin + g.first, b.committed + g.first, g.first, kRun, b.token, b.position, b.slot,
                       b.sequence, b.context, b.tail_begin, b.tail_slots, b.choose_position, b.parent},
                      stream_);
  }
}

// The target's own tokens, the walk down the trees, and what it leaves: KV and hidden states of the paths.
void Round::verify() {
  const Backend& backend = model_.backend();
  const RoundBatch::Arrays& b = batch_.device();
  const Results& r = device_results_;
  Batch batch = batch_.batch();
  if (!backend.host_memory) batch.max_positions = positions_bound();
  model_.forward(batch, cache_.layers(), b.output, batch_.outputs(), stream_);
  if (choosing_ == 0) return;
  backend.sample({model_.logits(), b.spec, b.choose_position, device_.chosen, device_.sample_scratch,
                  batch_.outputs(), model_.config().vocab, b.token, b.parent, b.begin, choosing_},
                 stream_);
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

// All of a round that the backend does: what it launches depends on the shape of the round alone.
void Round::work() {
  draft();
  place_trees();
  verify();
}

std::vector<int64_t> Round::shape() const {
  std::vector<int64_t> shape{static_cast<int64_t>(order_.size()), positions_bound()};
  for (const Group& g : groups_) shape.insert(shape.end(), {g.lanes, g.width, g.length, g.budget});
  return shape;
}

// The work of rounds that only decode becomes a graph when their shape comes for the second time.
void Round::launch_work() {
  const Backend& backend = model_.backend();
  const bool decodes =
      std::all_of(order_.begin(), order_.end(), [](const Lane* lane) { return lane->decoding; });
  if (backend.begin_capture == nullptr || !decodes) return work();
  if (graphs_.size() >= kMaxGraphs) forget_graphs();
  const auto [graph, is_new] = graphs_.try_emplace(shape(), nullptr);
  if (is_new) return work();
  if (graph->second == nullptr) {
    backend.begin_capture(stream_);
    try {
      work();
    } catch (...) {
      try {
        backend.release_graph(backend.end_capture(stream_));
      } catch (const Error&) {  // of the same fault
      }
      throw;
    }
    graph->second = backend.end_capture(stream_);
  }
  backend.launch_graph(graph->second, stream_);
}

void Round::forget_graphs() {
  for (const auto& [key, graph] : graphs_) {
    if (graph != nullptr) model_.backend().release_graph(graph);
  }
  graphs_.clear();
}

void Round::emit(Lane& lane, int64_t index) {
  const int32_t* emitted = results_.emitted + index * kRun;
  const int64_t path_length = results_.path_length[index];
  REDRAFTER_CHECK(path_length >= 1 && path_length <= kRun);
  lane.emitted.assign(emitted, emitted + path_length);
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
  if (lane.logprobs >= 0) add_logprobs(lane, index);
}

// As many tokens of the run at a time as there is room for.
void Round::add_logprobs(Lane& lane, int64_t index) {
  const Backend& backend = model_.backend();
  const size_t count = lane.emitted.size(), top = static_cast<size_t>(lane.logprobs);
  lane.logprob.resize(count);
  lane.top_token.resize(count * top);
  lane.top_logprob.resize(count * top);
  logprob_rows_.assign(results_.path + index * kRun, results_.path + index * kRun + count);
  for (int32_t& row : logprob_rows_) row += batch_.first_output(index);
  const size_t at_once = lane.logprobs <= kLogprobsAtOnce ? count : 1;
  for (size_t i = 0; i < count; i += at_once) {
    backend.upload(device_.logprob_row, logprob_rows_.data() + i, at_once * sizeof(int32_t), stream_);
    backend.upload(device_.logprob_token, lane.emitted.data() + i, at_once * sizeof(int32_t), stream_);
    backend.logprob(
        {model_.logits(), device_.logprob_row, device_.logprob_token, device_.logprob, device_.top_token,
         device_.top_logprob, static_cast<int64_t>(at_once), model_.config().vocab, lane.logprobs},
        stream_);
    backend.download(lane.logprob.data() + i, device_.logprob, at_once * sizeof(float), stream_);
    backend.download(lane.top_token.data() + i * top, device_.top_token, at_once * top * sizeof(int32_t),
                     stream_);
    backend.download(lane.top_logprob.data() + i * top, device_.top_logprob, at_once * top * sizeof(float),
                     stream_);
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

RoundTimes Round::run(const std::vector<Lane*>& lanes) {
  for (Lane* lane : lanes) {
    lane->emitted.clear();
    lane->logprob.clear();
    lane->top_token.clear();
    lane->top_logprob.clear();
    lane->accepted = lane->draft_nodes = lane->draft_depth = lane->on_first_beam = 0;
  }
  sort(lanes);
  place_results();
  fill_lanes();
  const RoundTimes times = model_.backend().host_memory ? run_in_steps() : run_at_once();
  for (size_t i = 0; i < order_.size(); ++i) {
    if (order_[i]->decoding) {
      settle_tree(*order_[i], static_cast<int64_t>(i));
    } else {
      settle_prompt(*order_[i], static_cast<int64_t>(i));
    }
  }
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
  verify();
  fetch_results();
  return {ms_between(start, drafted), ms_between(built, Clock::now())};
}

// One copy there, one back, and nothing between them that the host would have to know: it waits once.
RoundTimes Round::run_at_once() {
  const auto start = Clock::now();
  fill_rows(nullptr);
  batch_.upload(stream_);
  launch_work();
  fetch_results();
  model_.backend().wait(stream_);
  return {0.0, ms_between(start, Clock::now())};
}

}  // namespace redrafter
