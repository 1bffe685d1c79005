#include "engine/engine_thread.h"

#include <algorithm>

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
    const auto patience = !active_.empty()    ? std::chrono::milliseconds::zero()
                          : !waiting_.empty() ? kBlockPoll
                                              : std::chrono::milliseconds::max();
    for (Command& command : engine_.take_commands(patience)) {
      try {
        execute(command);
      } catch (const Error& error) {
        post_error(command.ticket, error.code(), error.what());
        if (stream_->get().error != nullptr) throw;  // the stream does nothing any more
      }
    }
    continue_jobs();
    // Time spent waiting for work is not the host's.
    if (active_.empty()) verified_ = std::chrono::steady_clock::time_point::max();
    admit();
    if (!active_.empty() && !engine_.closing_.load()) round();
    flush();
  }
}

void EngineThread::flush() {
  if (cache_ != nullptr) {
    const std::lock_guard lock(engine_.mutex_);
    engine_.usage_ = {cache_->shape().blocks, cache_->free_blocks(), kBlockTokens, cache_->bytes_per_block(),
                      static_cast<int64_t>(sessions_.size())};
  }
  engine_.deliver(outbox_);
}

void EngineThread::post_error(int64_t ticket, const char* code, const std::string& text) {
  Message message(MessageType::kError, ticket);
  message.code = code;
  message.text = text;
  post(std::move(message));
}

// Takes waiting requests in order while the cache has room for all they may ever need: nothing is evicted or
// starved of blocks in mid-stream.
void EngineThread::admit() {
  while (!waiting_.empty()) {
    Request& request = *waiting_.front();
    const int64_t slots = slots_wanted(request);
    const int64_t needed = request.session->kv.blocks_needed(slots);
    if (needed > cache_->free_blocks()) {
      if (waits_for_blocks(request, needed)) return;
      waiting_.pop_front();
      continue;
    }
    if (request.lane.generates) {
      if (!round_->hidden().any_free()) return;  // the end of an active request frees one
      request.lane.hidden = HiddenRows::Taken(round_->hidden());
    }
    request.session->kv.reserve(slots);
    request.started = std::chrono::steady_clock::now();
    active_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

// While something runs or is saved, its end will free blocks. When nothing does, only the host can free some,
// by disposing of sessions, which it may be about to do: a request fails after a grace, and at once if it
// could never fit.
bool EngineThread::waits_for_blocks(Request& request, int64_t needed) {
  const auto now = std::chrono::steady_clock::now();
  const bool never = needed > cache_->shape().blocks;
  if (!never && (!active_.empty() || !jobs_.empty())) {
    request.is_stuck = false;
    return true;
  }
  if (!never && !request.is_stuck) {
    request.is_stuck = true;
    request.stuck = now;
  }
  if (!never && now - request.stuck < kBlockGrace) return true;
  fail_request(request, "ERR_KV_FULL",
               "the request needs " + std::to_string(needed) + " KV blocks of " +
                   std::to_string(kBlockTokens) + " tokens, " + std::to_string(cache_->free_blocks()) +
                   " of " + std::to_string(cache_->shape().blocks) +
                   " are free; dispose or rewind sessions, lower " +
                   "maxTokens, or load with a larger kvTokens");
  return false;
}

int64_t EngineThread::slots_wanted(const Request& request) const {
  const Lane& lane = request.lane;
  const int64_t prompt = static_cast<int64_t>(request.session->tokens.size());
  if (!lane.generates) return prompt;
  return prompt + lane.max_tokens +
         (lane.acceptance ? Planner::kMostNodes : max_tree_nodes(lane.beam_width, lane.beam_length));
}

// As many active requests as fit one pass, each in turn first, so that none waits for more than a round.
std::vector<Lane*> EngineThread::pick_lanes() {
  running_.clear();
  std::vector<Lane*> lanes;
  int64_t rows = 0;
  for (auto& request : active_) {
    const int64_t wanted = round_->rows_wanted(request->lane);
    if (rows + wanted > model_->limits().rows) continue;
    rows += wanted;
    running_.push_back(request.get());
    lanes.push_back(&request->lane);
  }
  std::rotate(active_.begin(), active_.begin() + 1, active_.end());
  return lanes;
}

void EngineThread::plan_drafts(const std::vector<Lane*>& lanes) {
  if (adaptive_ == nullptr) return;
  int64_t rows = 0;
  for (const Lane* lane : lanes) rows += round_->rows_wanted(*lane);
  adaptive_->plan(lanes, rows, model_->limits().rows);
}

void EngineThread::round() {
  const auto begin = std::min(verified_, std::chrono::steady_clock::now());
  const std::vector<Lane*> lanes = pick_lanes();
  plan_drafts(lanes);
  std::vector<bool> was_decoding;
  for (const Lane* lane : lanes) was_decoding.push_back(lane->decoding);
  const RoundTimes times = round_->run(lanes);
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
      request.stats.prefill_ms = ms_since(request.started);
    }
    if (lane.failed) {
      fail_request(request, "ERR_NUMERIC", "every logit of the target is NaN: its weights are damaged");
      drop(request);
      continue;
    }
    if (!lane.emitted.empty()) report(request);
    const bool appended = !lane.generates && lane.kv->length() == static_cast<int64_t>(lane.tokens->size());
    if (appended || lane.finish != Finish::kNone) finish(request, lane.finish);
  }
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
  message.has_logprobs = lane.logprobs >= 0;
  message.logprobs = lane.logprob;
  message.top_ids = lane.top_token;
  message.top_logprobs = lane.top_logprob;
  post(std::move(message));
}

void EngineThread::finish(Request& request, Finish reason) {
  Session& session = *request.session;
  session.kv.truncate(session.kv.length());
  session.busy = false;
  if (!request.lane.generates && reason == Finish::kAbort) {
    post_error(request.ticket, "ERR_ABORTED", "the append was aborted");
    return drop(request);
  }
  Message message(request.lane.generates ? MessageType::kFinish : MessageType::kDone, request.ticket);
  message.reason = finish_name(reason);
  message.stats = request.stats;
  message.stats.tokens = static_cast<int64_t>(session.tokens.size()) - request.prompt_end;
  message.stats.total_ms = ms_since(request.started);
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
    return;
  }
}

void EngineThread::fail_request(Request& request, const char* code, const std::string& text) {
  request.session->kv.truncate(request.session->kv.length());
  request.session->busy = false;
  post_error(request.ticket, code, text);
}

}  // namespace redrafter
