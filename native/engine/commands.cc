// The commands of the host, one function each. All run on the engine thread, between rounds.
#include <algorithm>
#include <cstdlib>

#include "base/check.h"
#include "engine/engine_thread.h"

namespace redrafter {

void EngineThread::execute(Command& command) {
  switch (command.type) {
    case CommandType::kOpen:
      return open(command);
    case CommandType::kFork:
      return fork(command);
    case CommandType::kRewind:
      return rewind(command);
    case CommandType::kAppend:
    case CommandType::kGenerate:
      return start(command);
    case CommandType::kAbort:
      return abort(command);
    case CommandType::kRead:
      return note_read(command);
    case CommandType::kClose:
      return close_session(command);
    case CommandType::kReadKv:
      return read_kv(command);
    case CommandType::kSave:
      return save(command);
    case CommandType::kRestore:
      return restore(command);
    case CommandType::kClearPrefixes:
      return clear_prefixes(command);
  }
}

Session& EngineThread::session(int64_t id) {
  const auto at = sessions_.find(id);
  REDRAFTER_REQUIRE(at != sessions_.end(), "ERR_DISPOSED", "the session was disposed");
  return *at->second;
}

Session& EngineThread::idle_session(int64_t id) {
  Session& found = session(id);
  REDRAFTER_REQUIRE(!found.busy, "ERR_BUSY", "the session is busy with another append or generate");
  return found;
}

void EngineThread::post_done(int64_t ticket, const Session& session) {
  Message message(MessageType::kDone, ticket);
  message.tokens = static_cast<int64_t>(session.tokens.size());
  message.kv_tokens = session.kv.length();
  post(std::move(message));
}

void EngineThread::open(const Command& command) {
  auto& slot = sessions_[command.session];
  REDRAFTER_CHECK(slot == nullptr);
  slot = std::make_unique<Session>(*cache_);
  slot->prefix_key = command.text;
  slot->prefixes = prefixes_->scope(command.text);
  post_done(command.ticket, *slot);
}

void EngineThread::fork(const Command& command) {
  const Session& source = idle_session(command.value);
  auto copy = std::make_unique<Session>(*cache_);
  copy->tokens = source.tokens;
  copy->kv.fork_from(source.kv);
  copy->prefix_key = source.prefix_key;
  copy->prefixes = prefixes_->scope(source.prefix_key);
  auto& slot = sessions_[command.session];
  REDRAFTER_CHECK(slot == nullptr);
  slot = std::move(copy);
  post_done(command.ticket, *slot);
}

void EngineThread::rewind(const Command& command) {
  Session& target = idle_session(command.session);
  REDRAFTER_REQUIRE(command.value >= 0 && command.value <= static_cast<int64_t>(target.tokens.size()),
                    "ERR_INVALID_ARGUMENT", "cannot rewind to ", command.value, " tokens: the session holds ",
                    target.tokens.size());
  check_ids(command.ids, command.value);
  target.tokens.resize(static_cast<size_t>(command.value));
  target.kv.truncate(command.value);
  target.tokens.insert(target.tokens.end(), command.ids.begin(), command.ids.end());
  post_done(command.ticket, target);
}

// That `ids` can follow on `before` tokens; returns how many these are together.
int64_t EngineThread::check_ids(const std::vector<int32_t>& ids, int64_t before, bool generates) const {
  for (const int32_t id : ids) {
    REDRAFTER_REQUIRE(id >= 0 && id < model_->config().vocab, "ERR_INVALID_ARGUMENT", "token id ", id,
                      " is outside the vocabulary of ", model_->config().vocab, " ids");
  }
  const int64_t total = before + static_cast<int64_t>(ids.size());
  REDRAFTER_REQUIRE(total + (generates ? 1 : 0) <= context_tokens_, "ERR_CONTEXT", "the session would hold ",
                    total, " tokens", generates ? " before the first new one" : "", "; the context ends at ",
                    context_tokens_);
  return total;
}

// Tokens of the session and of the command before the first new one.
int64_t EngineThread::check_request(const Command& command, const Session& session) const {
  const int64_t held = static_cast<int64_t>(session.tokens.size());
  REDRAFTER_REQUIRE(command.value <= held, "ERR_INVALID_ARGUMENT", "cannot keep ", command.value,
                    " tokens: the session holds ", held);
  const bool generates = command.type == CommandType::kGenerate;
  const int64_t kept = generates && command.value >= 0 ? command.value : held;
  const int64_t total = check_ids(command.ids, kept, generates);
  REDRAFTER_REQUIRE(!generates || total > 0, "ERR_INVALID_ARGUMENT",
                    "there is nothing to continue: the session and the input are empty");
  const GenerateOptions& g = command.generate;
  const SampleSpec& s = g.sample;
  // Written so that NaN fails.
  REDRAFTER_REQUIRE(
      !generates || (s.temperature >= 0.0f && s.top_p > 0.0f && s.min_p >= 0.0f && s.top_k >= 0),
      "ERR_INVALID_ARGUMENT", "temperature, topK, topP or minP is out of range");
  REDRAFTER_REQUIRE(!generates || (g.max_tokens >= 1 && g.beam_width >= 0 && g.beam_width <= kMaxBeamWidth &&
                                   g.beam_length >= 0 && g.beam_length <= kMaxBeamLength &&
                                   g.logprobs <= model_->config().vocab),
                    "ERR_INVALID_ARGUMENT", "maxTokens, beamWidth, beamLength or logprobs is out of range");
  REDRAFTER_REQUIRE(!generates || (std::abs(g.priority) <= kMaxPriority && g.deadline_ms >= 0 &&
                                   g.deadline_ms <= INT32_MAX && g.buffer_tokens >= 0),
                    "ERR_INVALID_ARGUMENT", "priority, deadlineMs or bufferTokens is out of range");
  REDRAFTER_REQUIRE(
      !generates || g.slide_keep < 0 || (g.slide_tail >= 1 && g.slide_keep < context_tokens_ - g.slide_tail),
      "ERR_INVALID_ARGUMENT", "slideKeep or slideTail is out of range");
  if (generates) check_control(g);
  return total;
}

void EngineThread::check_control(const GenerateOptions& g) const {
  const ControlSpec& c = g.control;
  const auto within = [](float value, float low, float high) { return value >= low && value <= high; };
  REDRAFTER_REQUIRE(within(c.repetition, 0.01f, 100.0f) && within(c.presence, -2.0f, 2.0f) &&
                        within(c.frequency, -2.0f, 2.0f) && c.min_tokens >= 0 &&
                        c.bias_ids.size() == c.bias.size(),
                    "ERR_INVALID_ARGUMENT", "a penalty, logitBias or minTokens is out of range");
  for (const float bias : c.bias) {
    REDRAFTER_REQUIRE(within(bias, -100.0f, 100.0f), "ERR_INVALID_ARGUMENT", "logitBias is out of range");
  }
  for (const auto* ids : {&c.banned, &c.bias_ids, &g.eos, &g.stop}) {
    for (const int32_t id : *ids) {
      REDRAFTER_REQUIRE(id >= 0 && id < model_->config().vocab, "ERR_INVALID_ARGUMENT", "token id ", id,
                        " is outside the vocabulary of ", model_->config().vocab, " ids");
    }
  }
}

// The history that a request's penalties look at; `kept` tokens of its session come before its input.
void EngineThread::add_control(Lane& lane, const Command& command, int64_t kept) const {
  const ControlSpec& spec = command.generate.control;
  if (!spec.any()) return;
  std::vector<int32_t> prompt(lane.tokens->begin(), lane.tokens->begin() + kept);
  prompt.insert(prompt.end(), command.ids.begin(), command.ids.end());
  lane.control = std::make_unique<LaneControl>(spec, lane.stop, prompt);
}

void EngineThread::take_control_room(Request& request) {
  Lane& lane = request.lane;
  if (lane.control == nullptr) return;
  if (most_nodes(lane) > 1 && !lane.control->undrafted().empty()) round_->draft_masks().reserve_lanes();
  const int64_t tokens = slides(request) ? request.most_tokens : lane.max_tokens;
  lane.control_room = std::make_unique<ControlBatch::Room>(
      round_->control(), ControlBatch::Need{lane.control->most_entries(tokens, model_->config().vocab),
                                            lane.logprobs < 0 ? 0 : most_nodes(lane)});
}

void EngineThread::take_mask_room(const Lane& lane) {
  round_->masks().reserve();
  if (most_nodes(lane) > 1) round_->draft_masks().reserve_beams();
}

// Of the largest tree that the request may get in any round, the root included.
int64_t EngineThread::most_nodes(const Lane& lane) {
  return lane.acceptance ? Planner::kMostNodes : max_tree_nodes(lane.beam_width, lane.beam_length);
}

// Of the cache, when the session holds so many tokens.
int64_t EngineThread::slots_wanted(const Lane& lane, int64_t held) {
  if (!lane.generates) return held;
  return held + lane.max_tokens - lane.generated + most_nodes(lane);
}

// Changes nothing of the session yet.
std::unique_ptr<Request> EngineThread::make_request(Command& command, Session& target) const {
  auto request = std::make_unique<Request>();
  request->ticket = command.ticket;
  request->session_id = command.session;
  request->session = &target;
  request->place = std::move(command.place);
  request->submitted = request->turn = command.submitted;
  request->prompt_end = check_request(command, target);
  request->stats.prompt_tokens = request->prompt_end;

  Lane& lane = request->lane;
  lane.tokens = &target.tokens;
  lane.kv = &target.kv;
  lane.generates = command.type == CommandType::kGenerate;
  if (lane.generates) {
    const GenerateOptions& g = command.generate;
    request->turn = turn_of(command.submitted, g.priority);
    if (g.deadline_ms > 0) request->deadline = command.submitted + std::chrono::milliseconds(g.deadline_ms);
    request->buffer_tokens = g.buffer_tokens;
    lane.sample = g.sample;
    lane.stop = {g.eos, g.stop};
    lane.beam_width = drafter_ == nullptr || g.beam_length == 0 || g.adaptive ? 0 : g.beam_width;
    lane.beam_length = lane.beam_width == 0 ? 0 : g.beam_length;
    lane.max_tokens = std::min(g.max_tokens, context_tokens_ - request->prompt_end);
    request->most_tokens = g.max_tokens;
    request->slide_keep = g.slide_keep;
    request->slide_tail = g.slide_tail;
    lane.logprobs = g.logprobs;
    if (g.adaptive && adaptive_ != nullptr) adaptive_->adopt(lane);
    request->stats.drafted_by_depth.assign(static_cast<size_t>(lane.beam_length), 0);
    request->stats.accepted_by_depth.assign(static_cast<size_t>(lane.beam_length), 0);
    if (g.matcher != 0) lane.grammar = std::make_unique<LaneGrammar>(g.matcher);
    add_control(lane, command, request->prompt_end - static_cast<int64_t>(command.ids.size()));
  }
  const int64_t needed = (slots_wanted(lane, request->prompt_end) + kBlockTokens - 1) / kBlockTokens;
  REDRAFTER_REQUIRE(needed <= cache_->shape().blocks, "ERR_KV_FULL", "the request needs ", needed,
                    " KV blocks of ", kBlockTokens, " tokens, and the cache has ", cache_->shape().blocks,
                    " in all; lower maxTokens, or load with a larger kvTokens");
  return request;
}

void EngineThread::start(Command& command) {
  Session& target = idle_session(command.session);
  std::unique_ptr<Request> request = make_request(command, target);
  const int64_t kept = request->prompt_end - static_cast<int64_t>(command.ids.size());
  target.tokens.resize(static_cast<size_t>(kept));
  target.tokens.insert(target.tokens.end(), command.ids.begin(), command.ids.end());
  // The last token's logits are needed to generate, so at least that token is run.
  target.kv.truncate(std::min({target.kv.length(), kept, request->prompt_end - request->lane.generates}));
  request->stats.reused_tokens = target.kv.length();
  if (target.kv.length() == request->prompt_end)
    return post_done(command.ticket, target);  // nothing to compute
  target.busy = true;
  insert(waiting_, std::move(request));
  ++admission_changes_;
}

void EngineThread::abort(const Command& command) {
  if (const auto job = jobs_.find(command.ticket); job != jobs_.end()) job->second->cancelled.store(true);
  Request* request = find(command.ticket);
  if (request == nullptr) return;
  Session& target = *request->session;
  if (command.value >= 0) {
    // What was dropped meanwhile does not come back: the host knows, and puts the session right.
    const int64_t least = request->stats.dropped_tokens > 0 ? request->slide_keep + 1 : 0;
    const int64_t keep = std::min(std::max(request->prompt_end + command.value, least),
                                  static_cast<int64_t>(target.tokens.size()));
    target.tokens.resize(static_cast<size_t>(keep));
    target.kv.commit(std::min(target.kv.length(), keep - 1));
  }
  finish(*request, command.value >= 0 ? Finish::kStop : Finish::kAbort);
}

void EngineThread::note_read(const Command& command) {
  Request* request = find(command.ticket);
  if (request == nullptr) return;
  request->read =
      command.value < 0 ? -1 : std::max(request->read, command.value);  // what was read stays read
}

void EngineThread::close_session(const Command& command) {
  session(command.session);
  for (auto* queue : {&active_, &waiting_}) {
    for (auto& request : *queue) {
      if (request->session_id != command.session) continue;
      finish(*request, Finish::kAbort);
      break;
    }
  }
  sessions_.erase(command.session);
  Message message(MessageType::kDone, command.ticket);
  post(std::move(message));
}

// [layers, 2, tokens, kv_heads, head_dim] of the committed tokens.
void EngineThread::read_kv(const Command& command) {
  const KvSequence& kv = idle_session(command.session).kv;
  const KvShape& shape = cache_->shape();
  Message message(MessageType::kKv, command.ticket);
  const int64_t padded = head_dim_padded(shape.head_dim);
  std::vector<float> block(static_cast<size_t>(shape.block_floats()));
  const float *k = block.data(), *v = k + shape.k_block_floats();
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    for (const bool keys : {true, false}) {
      for (int64_t t = 0; t < kv.length(); ++t) {
        const int64_t offset = t % kBlockTokens;
        if (offset == 0) {
          cache_->export_block(layer, kv.blocks()[static_cast<size_t>(t / kBlockTokens)], kBlockTokens,
                               block.data(), stream_->get());
        }
        for (int64_t at = 0; at < shape.kv_heads * shape.head_dim; ++at) {
          const int64_t head = at / shape.head_dim, d = at % shape.head_dim;
          message.kv.push_back(keys ? k[at * kBlockTokens + offset]
                                    : v[(head * kBlockTokens + offset) * padded + d]);
        }
      }
    }
  }
  post(std::move(message));
}

}  // namespace redrafter
