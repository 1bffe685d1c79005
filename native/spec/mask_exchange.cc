#include "spec/mask_exchange.h"

#include <map>
#include <utility>

#include "base/check.h"

namespace redrafter {
namespace {

// Exchanges by number: a thread of the host has nothing else to find one by, as objects of the host do not
// cross from thread to thread.
struct Registry {
  std::mutex mutex;
  int64_t last = 0;
  std::map<int64_t, std::weak_ptr<MaskExchange>> open;
};

Registry& registry() {
  static Registry all;
  return all;
}

int64_t next_number() {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  return ++all.last;
}

std::vector<int32_t> written(int32_t number, const std::vector<MaskTree>& trees) {
  std::vector<int32_t> out{number, static_cast<int32_t>(trees.size())};
  for (const MaskTree& tree : trees) {
    out.insert(out.end(), {tree.matcher, static_cast<int32_t>(tree.accepted.size()),
                           static_cast<int32_t>(tree.token.size()), tree.wanted});
    for (const auto* list : {&tree.accepted, &tree.token, &tree.parent}) {
      out.insert(out.end(), list->begin(), list->end());
    }
  }
  return out;
}

// Throws where it is no answer to these trees.
MaskAnswer read(const std::vector<int32_t>& list, const std::vector<MaskTree>& trees) {
  size_t at = 1;
  const auto take = [&] {
    REDRAFTER_REQUIRE(at < list.size(), "ERR_INTERNAL", "an answer with masks is too short");
    return list[at++];
  };
  MaskAnswer answer;
  answer.masks = take();
  REDRAFTER_REQUIRE(answer.masks >= 0, "ERR_INTERNAL", "an answer with a wrong number of masks");
  for (const MaskTree& tree : trees) {
    answer.trees.push_back({take() != 0, {}});
    for (size_t node = 0; node < tree.token.size(); ++node) {
      const int32_t mask = take();
      REDRAFTER_REQUIRE(mask >= kEnds && mask < answer.masks, "ERR_INTERNAL", "an answer without its masks");
      answer.trees.back().mask.push_back(mask);
    }
  }
  answer.words.assign(list.begin() + static_cast<std::ptrdiff_t>(at), list.end());
  return answer;
}

}  // namespace

MaskExchange::MaskExchange(std::function<void()> on_change)
    : on_change_(std::move(on_change)), number_(next_number()) {}

MaskExchange::~MaskExchange() {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  all.open.erase(number_);
}

std::shared_ptr<MaskExchange> MaskExchange::open(std::function<void()> on_change) {
  auto exchange = std::make_shared<MaskExchange>(std::move(on_change));
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  all.open[exchange->number_] = exchange;
  return exchange;
}

std::shared_ptr<MaskExchange> MaskExchange::find(int64_t number) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  const auto at = all.open.find(number);
  return at == all.open.end() ? nullptr : at->second.lock();
}

bool MaskExchange::claim() {
  const std::lock_guard lock(mutex_);
  claimed_ = waiting_;
  return waiting_ || !failure_.empty();
}

void MaskExchange::release() {
  {
    const std::lock_guard lock(mutex_);
    claimed_ = false;
  }
  to_provider_.notify_one();
}

void MaskExchange::ask(std::vector<MaskTree> trees) {
  {
    const std::lock_guard lock(mutex_);
    trees_ = std::move(trees);
    asked_ = asked_ == INT32_MAX ? 1 : asked_ + 1;
    open_question_ = true;
    answered_ = false;
  }
  to_provider_.notify_one();
}

MaskAnswer MaskExchange::wait() {
  std::unique_lock lock(mutex_);
  const auto ready = [this] { return answered_ || closed_ || !failure_.empty(); };
  if (!to_engine_.wait_for(lock, kPatience, ready)) {
    failure_ = "the thread that carries out grammars does not answer";
  }
  open_question_ = false;
  if (answered_) return std::exchange(answer_, {});
  MaskAnswer answer;
  answer.error = closed_ ? "the model was disposed" : failure_;
  return answer;
}

void MaskExchange::take(const std::vector<int32_t>& answer) {
  if (answer.empty() || answer[0] != asked_ || answered_) return;  // nobody waits for it any more
  answer_ = read(answer, trees_);
  answered_ = true;
  to_engine_.notify_one();
}

std::vector<int32_t> MaskExchange::next(const std::vector<int32_t>& answer,
                                        std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  take(answer);
  failure_.clear();
  waiting_ = true;
  lock.unlock();
  report_change();
  lock.lock();
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!open_question_ && !closed_) {
    if (claimed_) {
      to_provider_.wait(lock);
    } else if (to_provider_.wait_until(lock, end) == std::cv_status::timeout && !claimed_) {
      break;
    }
  }
  waiting_ = false;
  if (closed_) return {-1};
  if (!std::exchange(open_question_, false)) return {};
  return written(asked_, trees_);
}

void MaskExchange::fail(const std::string& why) {
  {
    const std::lock_guard lock(mutex_);
    failure_ = why;
    claimed_ = false;
  }
  to_engine_.notify_one();
  report_change();
}

void MaskExchange::report_change() {
  const std::lock_guard lock(change_mutex_);
  if (on_change_) on_change_();
}

void MaskExchange::close() {
  {
    const std::lock_guard lock(change_mutex_);
    on_change_ = nullptr;
  }
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  to_engine_.notify_one();
  to_provider_.notify_one();
}

}  // namespace redrafter
