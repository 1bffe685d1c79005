// How the engine thread gets masks of tokens from a thread of the host, which knows the grammars of requests.
// The engine asks with the draft trees of a round and works on meanwhile; the host's thread, the provider,
// waits in next() until it is asked, and brings its answer with the next call.
//
// To the provider, questions and answers are lists of 32-bit integers, as lib/grammar/masks.ts reads them
// too:
//   question: number, trees; by tree: matcher, accepted, nodes, wanted, ids [accepted], token [nodes],
//             parent [nodes]
//   answer:   number, masks; by tree, in the same order: known, mask [nodes]; words [masks, words of a mask]
// `accepted` are ids that were generated since the matcher was asked for the last time. The first node stands
// for the text up to and with them, and its token is not looked at; each further one for that of its parent
// and its token, and comes behind it. `mask` of a node is the number of one in the answer, or kNoMask or
// kEnds; masks of nodes before `wanted` are not in the answer, and theirs is kNoMask. `known` is 0 where
// the provider has no such matcher, and 1 else.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace redrafter {

constexpr int32_t kNoMask = -1;  // the text of a node is none of the grammar: nothing leads there
constexpr int32_t kEnds = -2;    // it is complete, and nothing but its end may follow

// A question about one lane.
struct MaskTree {
  int32_t matcher = 0, wanted = 0;
  std::vector<int32_t> accepted;
  std::vector<int32_t> token, parent;
};

struct MaskAnswer {
  std::string error;  // not empty: there is no answer, and this is why
  struct Tree {
    bool known;
    std::vector<int32_t> mask;
  };
  std::vector<Tree> trees;
  int64_t masks = 0;
  std::vector<int32_t> words;  // [masks, words of a mask]
};

class MaskExchange {
 public:
  // `on_change` is called, on threads of the host and until close(), when claim() may say something else.
  explicit MaskExchange(std::function<void()> on_change);
  ~MaskExchange();
  MaskExchange(const MaskExchange&) = delete;
  MaskExchange& operator=(const MaskExchange&) = delete;

  // The exchange of this number that is open, for the provider, which may outlive it; or null.
  static std::shared_ptr<MaskExchange> find(int64_t number);
  static std::shared_ptr<MaskExchange> open(std::function<void()> on_change);
  int64_t number() const { return number_; }

  // --- for the engine thread

  // Whether the provider waits to be asked; if so it goes on waiting until release(). Else it is busy with
  // what may take long, and nobody should wait for it. Also true after fail(), so that who asks hears of it.
  bool claim();
  void release();
  void ask(std::vector<MaskTree> trees);
  // The answer to what was asked. Waits for it, kPatience at most.
  MaskAnswer wait();

  // --- for the host

  // For the provider: gives the answer to the last question, unless it is empty, and waits for the next one,
  // for that long if nobody claims it. Empty when there was none; {-1} once the exchange is closed.
  std::vector<int32_t> next(const std::vector<int32_t>& answer, std::chrono::milliseconds patience);
  // There is no provider any more: all that is or will be asked has this answer, until another one comes.
  void fail(const std::string& why);
  void close();

  static constexpr std::chrono::seconds kPatience{10};

 private:
  void take(const std::vector<int32_t>& answer);

  void report_change();

  std::mutex change_mutex_;
  std::function<void()> on_change_;  // null once it is closed
  const int64_t number_;
  std::mutex mutex_;
  std::condition_variable to_provider_, to_engine_;
  std::vector<MaskTree> trees_;  // of the question
  int32_t asked_ = 0;            // number of the last question
  bool open_question_ = false;   // not handed out yet
  bool answered_ = true;
  MaskAnswer answer_;
  std::string failure_;
  bool waiting_ = false, claimed_ = false, closed_ = false;
};

}  // namespace redrafter
