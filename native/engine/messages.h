// What crosses between the engine thread and its host: plain structs, no host types. lib/native.ts documents
// the same words.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/reason.h"
#include "engine/queue_limit.h"
#include "ops/sample.h"
#include "spec/control.h"

namespace redrafter {

struct EngineOptions {
  std::string model;
  std::string drafter;  // empty: none
  std::string device = "auto";
  // Of matrices: "f32", "f16", "bf16", or "auto": as stored, but bf16 for f32 on a backend that takes no f32.
  std::string dtype = "auto";
  // Of the drafter's: the same, but "auto" is what drafter_dtype() says.
  std::string drafter_dtype = "auto";
  int64_t threads = 0;         // 0: as many as the machine has cores
  int64_t context_tokens = 0;  // 0: the model's limit, at most 4096
  int64_t kv_tokens = 0;       // 0: 4 * context_tokens, or fewer to keep to the budget
  int64_t prefill_chunk = 0;   // 0: 256
  // Of MemoryUse::total(); 0: none. Without kv_tokens, the cache is as large as it allows.
  int64_t memory_budget_bytes = 0;
  int64_t max_active_requests = 0;  // 0: as many as there is room for
  int64_t max_queued_requests = 0;  // 0: 1024
  int64_t max_queued_tokens = 0;    // 0: 4 * kv_tokens
  int64_t prefix_cache_bytes = -1;  // of prefixes that no session holds; -1: as much as is free
};

// Bytes that a loaded model takes, all allocated by the time it is ready. Small change is not counted:
// queues, token lists, thread stacks; nor what loading takes beside, which is gone by then: two slices of a
// tensor (model/staging.h), and one more where it is converted. The peak is the sum of both.
struct MemoryUse {
  int64_t weights = 0;    // of the target
  int64_t drafter = 0;    // weights of the drafter
  int64_t kv = 0;         // of all KV blocks
  int64_t workspace = 0;  // of forward passes, drafting, sampling and the stream they run on
  int64_t total() const { return weights + drafter + kv + workspace; }
};

struct ModelInfo {
  std::string family, architecture, dtype, device, level;
  Reason device_reason;  // why device "auto" did not take CUDA
  int64_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn, max_positions, context_tokens, kv_tokens,
      threads;
  MemoryUse memory;
  uint64_t fingerprint;
  std::vector<int32_t> eos;
  bool has_drafter = false;
  std::string drafter_cell, drafter_format, drafter_dtype;
  int64_t drafter_exit = 0, drafter_blocks = 0, drafter_vocab = 0;
};

struct GenerateOptions {
  SampleSpec sample;
  ControlSpec control;
  int32_t matcher = 0;  // of the grammar that its text follows (spec/mask_exchange.h); 0: none
  int64_t max_tokens = 0;
  int64_t beam_width = 0, beam_length = 0;  // 0 x 0: plain decoding
  bool adaptive = false;  // the shape is chosen for each round instead, where there is a drafter
  int64_t logprobs = -1;
  int64_t priority = 0;       // -kMaxPriority to kMaxPriority, higher first
  int64_t deadline_ms = 0;    // from submission; 0: none
  int64_t buffer_tokens = 0;  // emitted but not read, beyond which it pauses
  // When the context is full, the first slide_keep tokens and the last slide_tail stay. -1: generation ends.
  int64_t slide_keep = -1, slide_tail = 0;
  std::vector<int32_t> eos, stop;
};

enum class CommandType : uint8_t {
  kOpen,
  kFork,
  kRewind,
  kAppend,
  kGenerate,
  kAbort,
  kRead,
  kClose,
  kReadKv,
  kSave,
  kRestore,
  kClearPrefixes
};

struct Command {
  CommandType type;
  int64_t ticket = 0;
  int64_t session = 0;
  // kFork: the source session; kRewind: tokens to keep; kGenerate: tokens to keep before ids, or -1 for all;
  // kAbort: generated tokens to keep, or -1; kRead: generated tokens that were read, or -1 for all to come
  int64_t value = 0;
  std::vector<int32_t> ids = {};  // kAppend, kGenerate; kRewind: to follow, their KV computed when needed
  GenerateOptions generate = {};
  std::string text = {};  // kSave, kRestore: path; kOpen: key of prefixes; kClearPrefixes: that, or all
  QueueLimit::Place place = {};  // kAppend, kGenerate
  std::chrono::steady_clock::time_point submitted = std::chrono::steady_clock::now();
};

struct RequestStats {
  int64_t prompt_tokens = 0, reused_tokens = 0, tokens = 0, rounds = 0, drafted_rounds = 0, drafted_nodes = 0;
  int64_t decoded = 0;         // tokens of those rounds, also those that were cut off later
  int64_t dropped_tokens = 0;  // of the session, as the context was full
  std::vector<int64_t> drafted_by_depth, accepted_by_depth;
  double queued_ms = 0.0;       // from submission to admission
  double first_token_ms = 0.0;  // from submission
  double prefill_ms = 0.0, draft_ms = 0.0, verify_ms = 0.0, host_ms = 0.0, total_ms = 0.0;
};

enum class MessageType : uint8_t {
  kProgress,
  kReady,
  kFailed,
  kDone,
  kError,
  kTokens,
  kFinish,
  kKv,
  kRestored,
  kClosed
};

struct Message {
  explicit Message(MessageType message_type, int64_t for_ticket = 0)
      : type(message_type), ticket(for_ticket) {}

  MessageType type;
  int64_t ticket;
  std::string code, text;                     // kFailed, kError
  int64_t bytes = 0, total_bytes = 0;         // kProgress
  std::vector<int32_t> ids;                   // kTokens; kRestored: all of the session
  std::vector<float> logprobs, top_logprobs;  // kTokens, when asked for
  std::vector<int32_t> top_ids;
  bool has_logprobs = false;
  int64_t accepted = 0;
  int64_t dropped = 0;                // kTokens: of the session, after slide_keep, before these came
  const char* reason = "";            // kFinish: "eos", "stop", "length", "abort", "deadline"
  RequestStats stats;                 // kFinish
  int64_t tokens = 0, kv_tokens = 0;  // kDone, kFinish, kRestored: of the session
  std::vector<float> kv;              // kKv
  ModelInfo info{};                   // kReady
};

// As of the last round.
struct KvUsage {
  int64_t total_blocks = 0, free_blocks = 0, block_tokens = 0, bytes_per_block = 0, sessions = 0;
  int64_t prefix_blocks = 0;   // that only the prefix index holds; neither free nor of a session
  int64_t evicted_blocks = 0;  // of the index, so far
  std::map<int64_t, int64_t> shared_blocks = {};  // by session: those that other sessions hold too, if any
};

// Appends and generations.
struct QueueUsage {
  int64_t waiting_requests = 0, waiting_tokens = 0;  // submitted and not admitted yet; tokens of their input
  int64_t active_requests = 0;                       // admitted, as of the last round
  int64_t paused_requests = 0;                       // of them, those whose tokens are not read
  int64_t max_requests = 0, max_tokens = 0;          // that may wait
};

struct EngineUsage {
  KvUsage kv;
  QueueUsage queue;
};

}  // namespace redrafter
