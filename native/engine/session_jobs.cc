// Saving and restoring sessions. Files are written and read on a thread of the job's own, so that a slow disk
// holds up nobody's rounds; blocks are taken and given back on the engine thread, as always.
#include <exception>
#include <functional>
#include <iterator>

#include "base/check.h"
#include "engine/engine_thread.h"

namespace redrafter {

// Runs one step of a job. When it ends, well or not, the engine thread goes on with continue_job().
void EngineThread::run_step(SessionJob& job, std::function<void()> step) {
  job.ended.store(false);
  const auto end = [this, &job] {
    job.ended.store(true);
    engine_.nudge();
  };
  try {
    job.thread = std::thread([&job, end, step = std::move(step)] {
      try {
        step();
      } catch (...) {
        job.error = std::current_exception();
      }
      end();
    });
  } catch (...) {  // no thread could be started
    job.error = std::current_exception();
    end();
  }
}

SessionJob& EngineThread::new_job(const Command& command) {
  auto job = std::make_unique<SessionJob>(*cache_);
  job->ticket = command.ticket;
  job->session_id = command.session;
  job->path = command.text;
  return *jobs_.emplace(command.ticket, std::move(job)).first->second;
}

void EngineThread::save(const Command& command) {
  const Session& source = idle_session(command.session);
  backend_->wait(stream_->get());  // the job reads what this stream has written
  SessionJob& job = new_job(command);
  // A fork: its blocks are shared and so nobody writes to them, whatever the session does meanwhile.
  job.session->tokens = source.tokens;
  job.session->kv.fork_from(source.kv);
  run_step(job, [this, &job] {
    write_session(job.path, origin_, job.session->tokens, *cache_, job.session->kv, job.stream.get(),
                  job.cancelled);
  });
}

void EngineThread::restore(const Command& command) {
  SessionJob& job = new_job(command);
  job.restores = true;
  run_step(job, [this, &job] {
    job.reader = std::make_unique<SessionReader>(job.path, origin_, cache_->shape(), model_->config().vocab,
                                                 context_tokens_);
  });
}

// Between the steps of a restore: the tokens are known, so blocks can be reserved.
void EngineThread::reserve_restored(SessionJob& job) {
  const int64_t needed = job.session->kv.blocks_needed(job.reader->kv_tokens());
  const int64_t available = cache_->available_blocks();
  REDRAFTER_REQUIRE(needed <= available, "ERR_KV_FULL", "the saved session needs ", needed, " KV blocks of ",
                    kBlockTokens, " tokens, ", available, " of ", cache_->shape().blocks, " are free");
  job.session->tokens = job.reader->tokens();
  job.session->kv.reserve(job.reader->kv_tokens());
  job.reserved = true;
  run_step(job,
           [this, &job] { job.reader->read_kv(*cache_, job.session->kv, job.stream.get(), job.cancelled); });
}

void EngineThread::continue_jobs() {
  for (auto at = jobs_.begin(); at != jobs_.end();) {
    const bool goes_on = !at->second->ended.load() || continue_job(*at->second);
    at = goes_on ? std::next(at) : jobs_.erase(at);
  }
}

// Starts the next step of a job, or answers it: then the job is over, and false is returned.
bool EngineThread::continue_job(SessionJob& job) {
  job.join();
  try {
    if (job.error != nullptr) std::rethrow_exception(job.error);
    if (job.restores && !job.reserved) {
      reserve_restored(job);
      return true;
    }
    if (!job.restores) {
      post_done(job.ticket, *job.session);
      return false;
    }
    auto& slot = sessions_[job.session_id];
    REDRAFTER_CHECK(slot == nullptr);
    slot = std::move(job.session);
    slot->prefixes = prefixes_->scope("");  // never a shared one: its KV is what a file says
    Message message(MessageType::kRestored, job.ticket);
    message.ids = slot->tokens;
    message.kv_tokens = slot->kv.length();
    post(std::move(message));
  } catch (const std::exception&) {
    const Error error = caught_error();
    post_error(job.ticket, error.code(), error.what());
  }
  return false;
}

void EngineThread::end_jobs(const Error& reason) {
  for (auto& [ticket, job] : jobs_) job->cancelled.store(true);
  for (auto& [ticket, job] : jobs_) {
    job->join();
    if (!job->restores && job->error == nullptr) {  // the file is there
      post_done(ticket, *job->session);
    } else {
      post_error(ticket, reason.code(), reason.what());
    }
  }
  jobs_.clear();
}

}  // namespace redrafter
