// What the engine thread does: load, then rounds over all active requests until it is closed.
#pragma once

#include <array>
#include <chrono>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <thread>

#include "base/check.h"
#include "base/threads.h"
#include "engine/engine.h"
#include "engine/plan.h"
#include "engine/scheduler.h"
#include "engine/session_file.h"
#include "kv/prefix_index.h"
#include "spec/adaptive.h"
#include "spec/round.h"

namespace redrafter {

// A conversation: its tokens and their cached KV.
struct Session {
  explicit Session(KvCache& cache) : kv(cache) {}
  std::vector<int32_t> tokens;
  KvSequence kv;
  std::string prefix_key;                 // empty: its own
  std::shared_ptr<PrefixScope> prefixes;  // null in snapshots, which run nothing
  bool busy = false;
};

// An append or generate command that is waiting or running.
struct Request {
  int64_t ticket = 0;
  int64_t session_id = 0;
  Session* session = nullptr;
  Lane lane;
  RequestStats stats;
  int64_t prompt_end = 0;   // session tokens before the first generated one, less what was dropped since
  int64_t most_tokens = 0;  // to generate, over all slides
  int64_t slide_keep = -1, slide_tail = 0;  // as in GenerateOptions
  int64_t dropped_now = 0;                  // and not reported yet
  std::unique_ptr<KvSequence> spare;        // blocks for a slide, instead of those it drops that others share
  std::chrono::steady_clock::time_point submitted;
  std::chrono::steady_clock::time_point turn;     // turn_of() it: requests are in its order
  std::chrono::steady_clock::time_point started;  // admission; the epoch before it
  std::chrono::steady_clock::time_point stuck;    // since when nothing runs and it still does not fit
  bool is_stuck = false;
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  QueueLimit::Place place;  // until it is admitted
  int64_t overtaken = 0;    // requests behind it that were admitted
  int64_t idle_rounds = 1;  // since it last had rows; a new one has waited already
  int64_t buffer_tokens = 0;
  int64_t read = 0;  // generated tokens that were read; -1: nobody holds it back

  // Its consumer is so far behind that it takes no part in rounds; it keeps its KV.
  bool paused() const { return read >= 0 && lane.generated - read > buffer_tokens; }
};
using RequestQueue = std::deque<std::unique_ptr<Request>>;

// A save or restore under way; session_jobs.cc. Its thread works on `session` and `reader`, the engine thread
// does so between the steps only.
struct SessionJob {
  explicit SessionJob(KvCache& cache)
      : session(std::make_unique<Session>(cache)), stream(cache.backend(), nullptr, StreamUse::kCopies) {}
  ~SessionJob() {
    cancelled.store(true);
    join();
  }
  void join() {
    if (thread.joinable()) thread.join();
  }
  int64_t ticket = 0;
  int64_t session_id = 0;
  std::string path;
  bool restores = false, reserved = false;
  std::unique_ptr<Session> session;       // a snapshot, or what is being restored
  std::unique_ptr<SessionReader> reader;  // of a restore
  BackendStream stream;                   // not the engine thread's: each copies in its own order
  std::atomic<bool> cancelled{false};
  std::atomic<bool> ended{false};  // the last step, well or not
  std::exception_ptr error;        // why it failed
  std::thread thread;
};

class EngineThread {
 public:
  explicit EngineThread(Engine& engine) : engine_(engine) {}
  void run();

 private:
  void load();
  void load_planner();
  void post_ready(const LoadPlan& plan, const MemoryUse& memory);
  void serve();

  void execute(Command& command);
  void open(const Command& command);
  void fork(const Command& command);
  void rewind(const Command& command);
  void start(Command& command);
  void abort(const Command& command);
  void note_read(const Command& command);
  void close_session(const Command& command);
  void read_kv(const Command& command);
  void save(const Command& command);
  void restore(const Command& command);
  SessionJob& new_job(const Command& command);
  void run_step(SessionJob& job, std::function<void()> step);
  void continue_jobs();
  bool continue_job(SessionJob& job);
  void reserve_restored(SessionJob& job);
  void end_jobs(const Error& reason);
  Session& session(int64_t id);
  Session& idle_session(int64_t id);
  int64_t check_ids(const std::vector<int32_t>& ids, int64_t before, bool generates = false) const;
  int64_t check_request(const Command& command, const Session& session) const;
  void check_control(const GenerateOptions& options) const;
  void add_control(Lane& lane, const Command& command, int64_t kept) const;
  void take_control_room(Request& request);
  void take_mask_room(const Lane& lane);
  std::unique_ptr<Request> make_request(Command& command, Session& target) const;
  static int64_t most_nodes(const Lane& lane);
  static int64_t slots_wanted(const Lane& lane, int64_t held);

  std::chrono::milliseconds patience() const;
  bool runs(const Request& request) const;
  bool any_runs() const;
  void claim_masks();
  void end_late();
  Request* find(int64_t ticket);
  static void insert(RequestQueue& queue, std::unique_ptr<Request> request);
  void admit();
  void admit(size_t index);
  bool waits_for_blocks(Request& request);
  // prefixes.cc
  bool slides(const Request& request) const;
  int64_t blocks_wanted(Request& request);
  void take_prefix(Request& request);
  void reserve(Request& request);
  void remember(Session& session);
  bool slide(Request& request);
  void clear_prefixes(const Command& command);
  void count_kv();

  std::vector<Lane*> pick_lanes();
  void plan_drafts(const std::vector<Lane*>& lanes);
  void round();
  void account(Request& request, const RoundTimes& times, double host_ms, size_t lanes);
  void report(Request& request);
  void finish(Request& request, Finish reason);
  void drop(Request& request);
  void fail_choice(Request& request);
  void fail_request(Request& request, const char* code, const std::string& text);

  void post(Message message) { outbox_.push_back(std::move(message)); }
  void post_done(int64_t ticket, const Session& session);
  void post_error(int64_t ticket, const char* code, const std::string& text);
  void flush();
  void publish_usage();

  Engine& engine_;
  const Backend* backend_ = nullptr;
  std::unique_ptr<ThreadPool> threads_;
  std::unique_ptr<BackendStream> stream_;  // outlives what runs on it
  std::unique_ptr<Model> model_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<PrefixIndex> prefixes_;
  std::unique_ptr<RecurrentDrafter> drafter_;
  std::unique_ptr<Round> round_;
  std::unique_ptr<AdaptiveDrafting> adaptive_;  // null without a drafter
  int64_t context_tokens_ = 0, prompt_chunk_ = 0;
  bool masks_ready_ = false;  // whoever makes masks waits to be asked
  std::map<int64_t, std::unique_ptr<Session>> sessions_;
  RequestQueue waiting_, active_;  // in turn
  int64_t max_active_ = INT64_MAX;
  // When nobody was admitted for the last time: changes of the cache, free hidden rows, changes of the
  // queues.
  using Refusal = std::array<int64_t, 3>;
  Refusal refused_{-1, -1, -1};
  int64_t admission_changes_ = 0;
  SessionOrigin origin_;           // what this engine's sessions are saved as
  std::vector<Request*> running_;  // the requests of the current round
  std::vector<Message> outbox_;
  KvUsage usage_;
  int64_t counted_changes_ = -1;                    // of the cache, when usage_.shared_blocks was counted
  std::chrono::steady_clock::time_point verified_;  // when the last round's verification ended
  // By ticket. The last member, so that their threads have ended before what they use goes.
  std::map<int64_t, std::unique_ptr<SessionJob>> jobs_;
};

}  // namespace redrafter
