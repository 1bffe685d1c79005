#include "engine/engine_thread.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace redrafter {
namespace {

constexpr auto kBlockGrace = std::chrono::milliseconds(500);
constexpr auto kBlockPoll = std::chrono::milliseconds(20);

double ms_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

const char* finish_name(Finish finish) {
  switch (finish) {
    case Finish::kEos:
      return "eos";
    case Finish::kStop:
      return "stop";
    case Finish::kLength:
      return "length";
    case Finish::kDeadline:
      return "deadline";
    default:
      return "abort";
  }
}

}  // namespace

void EngineThread::run() {
  Error end("ERR_DISPOSED", "the model was disposed");
  try {
    load();
    flush();
    serve();
  } catch (const std::exception&) {
    end = caught_error();
    Message message(MessageType::kFailed);
    message.code = end.code();
    message.text = end.what();
    post(std::move(message));
    flush();
  }
  engine_.masks_->release();
  // Whatever is open or comes before the host lets go is answered.
  end_jobs(end);
  for (auto* queue : {&active_, &waiting_}) {
    for (auto& request : *queue) post_error(request->ticket, end.code(), end.what());
    queue->clear();
  }
  while (!engine_.closing_.load()) {
    flush();
    for (const Command& command : engine_.take_commands(std::chrono::milliseconds::max())) {
      post_error(command.ticket, end.code(),
                 std::string("the model failed and can do no more work: ") + end.what());
    }
  }
  for (const Command& command : engine_.take_commands(std::chrono::milliseconds::zero())) {
    post_error(command.ticket, "ERR_DISPOSED", "the model was disposed");
  }
  sessions_.clear();
  flush();
}

void EngineThread::serve() {
  while (!engine_.closing_.load()) {
    for (Command& command : engine_.take_commands(patience())) {
      try {
        execute(command);
      } catch (const Error& error) {
        post_error(command.ticket, error.code(), error.what());
        if (stream_->get().error != nullptr) throw;  // the stream does nothing any more
      }
    }
    continue_jobs();
    end_late();
    // Time spent waiting for work is not the host's.
    if (!any_runs()) verified_ = std::chrono::steady_clock::time_point::max();
    admit();
    claim_masks();
    if (any_runs() && !engine_.closing_.load()) round();
    if (masks_ready_) engine_.masks_->release();
    // Else they are told while the next round, which begins at once, is on its way.
    if (!any_runs() || backend_->host_memory) flush();
  }
}

// A request with a grammar has no part in rounds while nobody waits to make its masks.
bool EngineThread::runs(const Request& request) const {
  return !request.paused() && (request.lane.grammar == nullptr || masks_ready_);
}

bool EngineThread::any_runs() const {
  return std::any_of(active_.begin(), active_.end(), [this](const auto& request) { return runs(*request); });
}

void EngineThread::claim_masks() {
  masks_ready_ = std::any_of(active_.begin(), active_.end(),
                             [](const auto& request) { return request->lane.grammar != nullptr; }) &&
                 engine_.masks_->claim();
}

// For how long there is nothing to do unless the host says something.
std::chrono::milliseconds EngineThread::patience() const {
  if (any_runs()) return std::chrono::milliseconds::zero();
  auto first = std::chrono::steady_clock::time_point::max();
  for (const auto* queue : {&active_, &waiting_}) {
    for (const auto& request : *queue) first = std::min(first, request->deadline);
  }
  auto most = waiting_.empty() ? std::chrono::milliseconds::max() : kBlockPoll;
  if (first == std::chrono::steady_clock::time_point::max()) return most;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(first - std::chrono::steady_clock::now());
  return std::clamp(left, std::chrono::milliseconds(0), most);
}

// Requests whose time is over keep what they generated, those that still wait included.
void EngineThread::end_late() {
  const auto now = std::chrono::steady_clock::now();
  for (auto* queue : {&active_, &waiting_}) {
    for (size_t i = queue->size(); i-- > 0;) {
      if ((*queue)[i]->deadline <= now) finish(*(*queue)[i], Finish::kDeadline);
    }
  }
}

void EngineThread::flush() {
  if (prefixes_ != nullptr) prefixes_->trim();
  publish_usage();
  engine_.deliver(outbox_);
}

void EngineThread::publish_usage() {
  if (prefixes_ == nullptr) return;
  count_kv();
  const std::lock_guard lock(engine_.mutex_);
  engine_.usage_.kv = usage_;
  QueueUsage& queue = engine_.usage_.queue;
  queue.active_requests = static_cast<int64_t>(active_.size());
  queue.paused_requests =
      std::count_if(active_.begin(), active_.end(), [](const auto& request) { return request->paused(); });
}

void EngineThread::post_error(int64_t ticket, const char* code, const std::string& text) {
  Message message(MessageType::kError, ticket);
  message.code = code;
  message.text = text;
  post(std::move(message));
}

// Behind all that come no later in turn.
void EngineThread::insert(RequestQueue& queue, std::unique_ptr<Request> request) {
  const auto at = std::upper_bound(queue.begin(), queue.end(), request->turn,
                                   [](auto turn, const auto& other) { return turn < other->turn; });
  queue.insert(at, std::move(request));
}

Request* EngineThread::find(int64_t ticket) {
  for (auto* queue : {&active_, &waiting_}) {
    for (auto& request : *queue) {
      if (request->ticket == ticket) return request.get();
    }
  }
  return nullptr;
}

// Takes waiting requests while the cache has room for all that they may ever need: nothing is evicted or
// starved of blocks in mid-stream.
void EngineThread::admit() {
  while (!waiting_.empty()) {
    const Refusal now{cache_->changes(), round_->hidden().free_rows(), admission_changes_};
    if (!active_.empty() && now == refused_) return;  // nothing has become free since
    if (static_cast<int64_t>(active_.size()) >= max_active_) return;
    std::vector<WaitingRequest> first;
    for (size_t i = 0; i < std::min(waiting_.size(), kLookAhead); ++i) {
      Request& request = *waiting_[i];
      if (i > 0 && slides(request)) break;  // is admitted in its turn only, as what it needs it takes
      first.push_back({blocks_wanted(request), request.lane.generates, request.overtaken});
    }
    const int64_t next = next_admission(first, cache_->available_blocks(), round_->hidden().free_rows());
    if (next >= 0) {
      admit(static_cast<size_t>(next));
    } else if (waits_for_blocks(*waiting_.front())) {
      refused_ = {cache_->changes(), round_->hidden().free_rows(), admission_changes_};
      return;
    } else {
      waiting_.pop_front();
    }
  }
}

void EngineThread::admit(size_t index) {
  std::unique_ptr<Request> request = std::move(waiting_[index]);
  waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(index));
  for (size_t i = 0; i < index; ++i) ++waiting_[i]->overtaken;
  const QueueLimit::Place place =
      std::move(request->place);  // until it shows as active: it is in sight always
  request->started = std::chrono::steady_clock::now();
  request->stats.queued_ms = ms_since(request->submitted);
  try {
    take_control_room(*request);
    if (request->lane.grammar != nullptr) take_mask_room(request->lane);
  } catch (const Error& error) {
    ++admission_changes_;
    return fail_request(*request, error.code(), error.what());
  }
  if (request->lane.generates) request->lane.hidden = HiddenRows::Taken(round_->hidden());
  reserve(*request);
  Request& admitted = *request;
  insert(active_, std::move(request));
  // All that was to be appended may have been known.
  if (!admitted.lane.generates && admitted.session->kv.length() == admitted.prompt_end)
    finish(admitted, Finish::kNone);
  publish_usage();
}

// While something runs or is saved, its end will free blocks. When nothing does, only the host can free some,
// by disposing of sessions, which it may be about to do: a request fails after a grace.
bool EngineThread::waits_for_blocks(Request& request) {
  const auto now = std::chrono::steady_clock::now();
  if (!active_.empty() || !jobs_.empty()) {
    request.is_stuck = false;
    return true;
  }
  if (!request.is_stuck) {
    request.is_stuck = true;
    request.stuck = now;
  }
  if (now - request.stuck < kBlockGrace) return true;
  const int64_t needed = blocks_wanted(request);
  fail_request(request, "ERR_KV_FULL",
               "the request needs " + std::to_string(needed) + " KV blocks of " +
                   std::to_string(kBlockTokens) + " tokens, " + std::to_string(cache_->available_blocks()) +
                   " of " + std::to_string(cache_->shape().blocks) +
                   " are free; dispose or rewind sessions, lower " +
                   "maxTokens, or load with a larger kvTokens");
  return false;
}

// The requests of the next round, with their rows.
std::vector<Lane*> EngineThread::pick_lanes() {
  std::vector<Request*> candidates;
  std::vector<ActiveRequest> wanted;
  for (auto& request : active_) {
    if (!runs(*request)) continue;
    candidates.push_back(request.get());
    wanted.push_back({request->lane.decoding, round_->rows_wanted(request->lane), request->idle_rounds});
  }
  const std::vector<int64_t> rows = plan_rows(wanted, {model_->limits().rows, prompt_chunk_});
  running_.clear();
  std::vector<Lane*> lanes;
  for (size_t i = 0; i < candidates.size(); ++i) {
    Request& request = *candidates[i];
    ++request.idle_rounds;
    if (rows[i] == 0) continue;
    request.idle_rounds = 0;
    request.lane.prompt_rows = rows[i];
    running_.push_back(&request);
    lanes.push_back(&request.lane);
  }
  return lanes;
}

void EngineThread::plan_drafts(const std::vector<Lane*>& lanes) {
  if (adaptive_ == nullptr) return;
  int64_t rows = 0;
  for (const Lane* lane : lanes) rows += lane->decoding ? round_->rows_wanted(*lane) : lane->prompt_rows;
  adaptive_->plan(lanes, rows, model_->limits().rows);
}

void EngineThread::round() {
  const auto begin = std::min(verified_, std::chrono::steady_clock::now());
  const std::vector<Lane*> lanes = pick_lanes();
  plan_drafts(lanes);
  std::vector<bool> was_decoding;
  for (const Lane* lane : lanes) was_decoding.push_back(lane->decoding);
  const RoundTimes times = round_->run(lanes, [this] { flush(); });
  verified_ = std::chrono::steady_clock::now();
  const double host_ms =
      std::chrono::duration<double, std::milli>(verified_ - begin).count() - times.draft_ms - times.verify_ms;
  if (adaptive_ != nullptr) adaptive_->learn(*round_, times, host_ms);
  for (size_t i = 0; i < running_.size(); ++i) {
    Request& request = *running_[i];
    Lane& lane = request.lane;
    if (was_decoding[i]) {
      account(request, times, host_ms, lanes.size());
    } else {
      if (lane.generated == static_cast<int64_t>(lane.emitted.size())) {
        request.stats.prefill_ms = ms_since(request.started);
      } else {  // after a slide
        request.stats.prefill_ms += host_ms + times.draft_ms + times.verify_ms;
      }
      if (lane.decoding && !slides(request)) remember(*request.session);
    }
    if (lane.failed) {
      fail_choice(request);
      drop(request);
      continue;
    }
    if (!lane.emitted.empty()) report(request);
    if (lane.finish == Finish::kLength && slide(request)) continue;
    const bool appended = !lane.generates && lane.kv->length() == static_cast<int64_t>(lane.tokens->size());
    if (appended || lane.finish != Finish::kNone) finish(request, lane.finish);
  }
}

// No token could be chosen.
void EngineThread::fail_choice(Request& request) {
  const Lane& lane = request.lane;
  if (engine_.closing_.load()) return fail_request(request, "ERR_DISPOSED", "the model was disposed");
  if (lane.grammar != nullptr && !lane.grammar->error.empty()) {
    return fail_request(request, "ERR_GRAMMAR_WORKER", lane.grammar->error);
  }
  if (lane.grammar != nullptr) {
    return fail_request(
        request, "ERR_GRAMMAR",
        "no token can be chosen: all that may follow in the grammar are NaN, banned, held back "
        "or not in the vocabulary");
  }
  fail_request(request, "ERR_NUMERIC",
               lane.control == nullptr
                   ? "every logit of the target is NaN: its weights are damaged"
                   : "no token can be chosen: every logit is NaN, or its token banned or held back");
}

void EngineThread::account(Request& request, const RoundTimes& times, double host_ms, size_t lanes) {
  const Lane& lane = request.lane;
  RequestStats& stats = request.stats;
  stats.rounds += 1;
  stats.decoded += static_cast<int64_t>(lane.emitted.size());
  stats.drafted_nodes += lane.draft_nodes;
  stats.drafted_rounds += lane.draft_depth > 0 ? 1 : 0;
  const size_t depths = std::max(stats.drafted_by_depth.size(), static_cast<size_t>(lane.draft_depth));
  stats.drafted_by_depth.resize(depths);
  stats.accepted_by_depth.resize(depths);
  stats.draft_ms += times.draft_ms / static_cast<double>(lanes);
  stats.verify_ms += times.verify_ms / static_cast<double>(lanes);
  stats.host_ms += host_ms / static_cast<double>(lanes);
  for (int64_t d = 0; d < lane.draft_depth; ++d) stats.drafted_by_depth[static_cast<size_t>(d)] += 1;
  for (int64_t d = 0; d < lane.accepted; ++d) stats.accepted_by_depth[static_cast<size_t>(d)] += 1;
}

void EngineThread::report(Request& request) {
  Lane& lane = request.lane;
  if (request.stats.first_token_ms == 0.0) request.stats.first_token_ms = ms_since(request.submitted);
  Message message(MessageType::kTokens, request.ticket);
  message.ids = lane.emitted;
  message.accepted = lane.accepted;
  message.dropped = std::exchange(request.dropped_now, 0);
  message.has_logprobs = lane.logprobs >= 0;
  message.logprobs = lane.logprob;
  message.top_ids = lane.top_token;
  message.top_logprobs = lane.top_logprob;
  post(std::move(message));
}

void EngineThread::finish(Request& request, Finish reason) {
  Session& session = *request.session;
  session.kv.truncate(session.kv.length());
  remember(session);
  session.busy = false;
  if (!request.lane.generates && reason == Finish::kAbort) {
    post_error(request.ticket, "ERR_ABORTED", "the append was aborted");
    return drop(request);
  }
  Message message(request.lane.generates ? MessageType::kFinish : MessageType::kDone, request.ticket);
  message.reason = finish_name(reason);
  message.stats = request.stats;
  message.stats.tokens = static_cast<int64_t>(session.tokens.size()) - request.prompt_end;
  const bool admitted = request.started != std::chrono::steady_clock::time_point();
  if (!admitted) message.stats.queued_ms = ms_since(request.submitted);
  message.stats.total_ms = admitted ? ms_since(request.started) : 0.0;
  message.tokens = static_cast<int64_t>(session.tokens.size());
  message.kv_tokens = session.kv.length();
  post(std::move(message));
  drop(request);
}

void EngineThread::drop(Request& request) {
  for (auto* queue : {&active_, &waiting_}) {
    const auto at =
        std::find_if(queue->begin(), queue->end(), [&](const auto& r) { return r.get() == &request; });
    if (at == queue->end()) continue;
    queue->erase(at);
    ++admission_changes_;
    return;
  }
}

void EngineThread::fail_request(Request& request, const char* code, const std::string& text) {
  request.session->kv.truncate(request.session->kv.length());
  request.session->busy = false;
  post_error(request.ticket, code, text);
}

}  // namespace redrafter
