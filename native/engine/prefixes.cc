// What requests take from the prefix index and leave there, and what happens when a context is full.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/philox.h"
#include "engine/engine_thread.h"

namespace redrafter {
namespace {

// What decides a request's draws once it has dropped tokens: positions come again after a slide, and must not
// bring the same draws.
uint64_t seed_after(uint64_t seed, int64_t dropped) {
  const auto r = philox4x32_10({static_cast<uint32_t>(dropped), static_cast<uint32_t>(dropped >> 32), 0,
                                static_cast<uint32_t>(DrawPurpose::kSlide)},
                               {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return uint64_t{r[0]} << 32 | r[1];
}

// Tokens whose KV may come from elsewhere: the last one's logits are needed, so at least that one is run.
int64_t reusable(const Request& request) { return request.prompt_end - (request.lane.generates ? 1 : 0); }

}  // namespace

// Whether the context may be full before the request has all its tokens.
bool EngineThread::slides(const Request& request) const {
  return request.slide_keep >= 0 && request.lane.max_tokens < request.most_tokens;
}

// Blocks that must be available for the request to be admitted.
int64_t EngineThread::blocks_wanted(Request& request) {
  const KvSequence& kv = request.session->kv;
  const int64_t slots = slots_wanted(request.lane, request.prompt_end);
  if (slides(request)) {
    // A slide drops blocks and takes as many. Those that others share, or might come to, will not be free
    // then, so that spare ones are kept for them.
    const int64_t first = request.slide_keep / kBlockTokens;
    take_prefix(request);
    prefixes_->forget(*request.session->prefixes, request.session->tokens, first);
    return kv.blocks_needed(slots) + kv.claimed_blocks(first);
  }
  int64_t needed = kv.blocks_needed(slots);
  // Idle blocks that it takes are available no more. Those that sessions hold need not be taken from the
  // pool.
  const auto found = prefixes_->find(*request.session->prefixes, request.session->tokens, reusable(request));
  for (size_t i = static_cast<size_t>(kv.length() / kBlockTokens); i < found.size(); ++i) {
    const bool own = i < kv.blocks().size() && kv.blocks()[i] == found[i];
    if (!own && !cache_->idle(found[i])) --needed;
  }
  return std::max<int64_t>(needed, 0);
}

void EngineThread::take_prefix(Request& request) {
  Session& session = *request.session;
  prefixes_->take(*session.prefixes, session.tokens, reusable(request), session.kv);
  request.stats.reused_tokens = session.kv.length();
}

void EngineThread::reserve(Request& request) {
  KvSequence& kv = request.session->kv;
  if (slides(request)) {
    request.spare = std::make_unique<KvSequence>(*cache_);
    request.spare->reserve(kv.claimed_blocks(request.slide_keep / kBlockTokens) * kBlockTokens);
  } else {
    take_prefix(request);
  }
  kv.reserve(slots_wanted(request.lane, request.prompt_end));
}

void EngineThread::remember(Session& session) {
  ++admission_changes_;  // others may need less now
  prefixes_->add(*session.prefixes, session.tokens, session.kv);
}

// The context is full and there are tokens to come: the first slide_keep and the last slide_tail tokens stay,
// and the KV of the latter, at their new positions, is computed like that of a prompt.
bool EngineThread::slide(Request& request) {
  if (!slides(request)) return false;
  Session& session = *request.session;
  Lane& lane = request.lane;
  auto& tokens = session.tokens;
  const int64_t held = static_cast<int64_t>(tokens.size());
  const int64_t dropped = held - request.slide_keep - request.slide_tail;
  REDRAFTER_CHECK(held == context_tokens_ && dropped > 0);
  tokens.erase(tokens.begin() + request.slide_keep, tokens.begin() + request.slide_keep + dropped);
  request.prompt_end -= dropped;
  request.dropped_now += dropped;
  lane.sample.seed = seed_after(lane.sample.seed, dropped);
  lane.max_tokens = lane.generated + std::min(request.most_tokens - lane.generated, dropped);
  lane.decoding = false;
  lane.finish = Finish::kNone;
  if (lane.control != nullptr) lane.control->hold(tokens);
  request.stats.dropped_tokens += dropped;
  session.kv.truncate(request.slide_keep);
  if (request.spare != nullptr) request.spare->truncate(0);
  session.kv.reserve(slots_wanted(lane, static_cast<int64_t>(tokens.size())));
  return true;
}

void EngineThread::clear_prefixes(const Command& command) {
  if (command.text.empty()) {
    prefixes_->clear();
  } else {
    prefixes_->clear(command.text);
  }
  post(Message(MessageType::kDone, command.ticket));
}

void EngineThread::count_kv() {
  if (std::exchange(counted_changes_, cache_->changes()) != cache_->changes()) {
    usage_.shared_blocks.clear();
    for (const auto& [id, session] : sessions_) {
      if (const int64_t shared = session->kv.shared_blocks(); shared > 0) usage_.shared_blocks[id] = shared;
    }
  }
  usage_.total_blocks = cache_->shape().blocks;
  usage_.free_blocks = cache_->free_blocks();
  usage_.block_tokens = kBlockTokens;
  usage_.bytes_per_block = cache_->bytes_per_block();
  usage_.sessions = static_cast<int64_t>(sessions_.size());
  usage_.prefix_blocks = cache_->idle_blocks();
  usage_.evicted_blocks = prefixes_->evicted_blocks();
}

}  // namespace redrafter
