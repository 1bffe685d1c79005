// Graphs of rounds, by the shape of what they launch.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <vector>

#include "ops/ops.h"

namespace redrafter {

class RoundGraphs {
 public:
  // Everything that decides what a round launches, with which sizes and on which memory.
  using Shape = std::vector<int64_t>;

  explicit RoundGraphs(const Backend& backend) : backend_(backend) {}
  RoundGraphs(const RoundGraphs&) = delete;
  RoundGraphs& operator=(const RoundGraphs&) = delete;
  ~RoundGraphs();

  // Has `work` done, which does the same whenever it has this shape: by itself when the shape comes for the
  // first time, from then on as a graph that is recorded once. Recording costs about what doing it once does,
  // and the backend keeps memory for a graph that nobody counts; so a shape that comes once gets none, and of
  // kMost graphs the one that was not used for the longest time makes room. It is recorded anew if its shape
  // is still remembered when it comes back.
  void run(const Shape& shape, Stream& stream, const std::function<void()>& work);

  static constexpr size_t kMost = 64, kRemembered = 256;

 private:
  struct Entry {
    Shape shape;
    void* graph = nullptr;
  };
  void* record(Stream& stream, const std::function<void()>& work);
  void make_room();

  const Backend& backend_;
  std::list<Entry> entries_;  // the last used one first
  size_t graphs_ = 0;         // of them that have one
};

}  // namespace redrafter
