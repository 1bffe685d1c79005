// Saving and restoring sessions. Files are written and read on a thread of the job's own, so that a slow disk
// holds up nobody's rounds; blocks are taken and given back on the engine thread, as always.
#include <exception>
#include <functional>
#include <new>
#include <string>
#include <utility>

#include "base/check.h"
#include "engine/engine_thread.h"

namespace redrafter {

// Runs one step of a job. When it ends, well or not, the engine thread goes on with continue_job().
void EngineThread::run_step(SessionJob& job, std::function<void()> step) {
  const auto failed = [&job](const char* code, std::string text) { job.code = code, job.text = std::move(text); };
  const auto ended = [this, ticket = job.ticket] {
    engine_.submit(Command{CommandType::kContinueJob, ticket, 0, 0});
  };
  const auto body = [failed, ended, step = std::move(step)] {
    try {
      step();
    } catch (const Error& error) {
      failed(error.code(), error.what());
    } catch (const std::bad_alloc&) {
      failed("ERR_OOM", "out of memory");
    } catch (const std::exception& error) {
      failed("ERR_INTERNAL", error.what());
    }
    ended();
  };
  try {
    job.thread = std::thread(body);
  } catch (const std::exception& error) {  // no thread to be had, or no memory for it
    failed("ERR_OOM", std::string("cannot start a thread: ") + error.what());
    ended();
  }
}

SessionJob& EngineThread::new_job(const Command& command) {
  auto job = std::make_unique<SessionJob>(*cache_);
  job->ticket = command.ticket;
  job->session_id = command.session;
  job->path = command.path;
  return *jobs_.emplace(command.ticket, std::move(job)).first->second;
}

void EngineThread::save(const Command& command) {
  const Session& source = idle_session(command.session);
  SessionJob& job = new_job(command);
  // A fork: its blocks are shared and so nobody writes to them, whatever the session does meanwhile.
  job.session->tokens = source.tokens;
  job.session->kv.fork_from(source.kv);
  run_step(job, [this, &job] {
    write_session(job.path, origin_, job.session->tokens, *cache_, job.session->kv, job.cancelled);
  });
}

void EngineThread::restore(const Command& command) {
  SessionJob& job = new_job(command);
  job.restores = true;
  run_step(job, [this, &job] {
    job.reader = std::make_unique<SessionReader>(job.path, origin_, cache_->shape(), model_->config().vocab);
  });
}

// Between the steps of a restore: the tokens are known, so blocks can be reserved.
void EngineThread::reserve_restored(SessionJob& job) {
  const int64_t tokens = static_cast<int64_t>(job.reader->tokens().size());
  REDRAFTER_REQUIRE(tokens <= context_tokens_, "ERR_CONTEXT", "the saved session has ", tokens,
                    " tokens; the context ends at ", context_tokens_);
  const int64_t needed = job.session->kv.blocks_needed(job.reader->kv_tokens());
  REDRAFTER_REQUIRE(needed <= cache_->free_blocks(), "ERR_KV_FULL", "the saved session needs ", needed,
                    " KV blocks of ", kBlockTokens, " tokens, ", cache_->free_blocks(), " of ",
                    cache_->shape().blocks, " are free");
  job.session->tokens = job.reader->tokens();
  job.session->kv.reserve(job.reader->kv_tokens());
  job.reserved = true;
  run_step(job, [this, &job] { job.reader->read_kv(*cache_, job.session->kv, job.cancelled); });
}

void EngineThread::continue_job(const Command& command) {
  const auto at = jobs_.find(command.ticket);
  REDRAFTER_CHECK(at != jobs_.end());
  SessionJob& job = *at->second;
  if (job.thread.joinable()) job.thread.join();
  try {
    if (job.code != nullptr) throw Error(job.code, job.text);
    if (job.restores && !job.reserved) return reserve_restored(job);
    if (job.restores) {
      Message message(MessageType::kRestored, job.ticket);
      message.ids = job.session->tokens;
      message.kv_tokens = job.session->kv.length();
      auto& slot = sessions_[job.session_id];
      REDRAFTER_CHECK(slot == nullptr);
      slot = std::move(job.session);
      post(std::move(message));
    } else {
      post_done(command, *job.session);
    }
  } catch (const Error& error) {
    post_error(job.ticket, error.code(), error.what());
  }
  jobs_.erase(at);
}

void EngineThread::end_jobs() {
  for (auto& [ticket, job] : jobs_) job->cancelled.store(true);
  for (auto& [ticket, job] : jobs_) {
    if (job->thread.joinable()) job->thread.join();
    post_error(ticket, "ERR_DISPOSED", "the model was disposed");
  }
  jobs_.clear();
}

}  // namespace redrafter
