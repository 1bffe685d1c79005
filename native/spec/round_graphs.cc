#include "spec/round_graphs.h"

#include <algorithm>

#include "base/check.h"

namespace redrafter {

RoundGraphs::~RoundGraphs() {
  for (const Entry& entry : entries_) {
    if (entry.graph != nullptr) backend_.release_graph(entry.graph);
  }
}

void RoundGraphs::run(const Shape& shape, Stream& stream, const std::function<void()>& work) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.shape == shape; });
  if (found == entries_.end()) {
    if (entries_.size() == kRemembered) {
      if (entries_.back().graph != nullptr) backend_.release_graph(entries_.back().graph), --graphs_;
      entries_.pop_back();
    }
    entries_.push_front({shape});
    return work();
  }
  entries_.splice(entries_.begin(), entries_, found);
  if (found->graph == nullptr) {
    if (graphs_ == kMost) make_room();
    found->graph = record(stream, work);
    ++graphs_;
  }
  backend_.launch_graph(found->graph, stream);
}

void* RoundGraphs::record(Stream& stream, const std::function<void()>& work) {
  backend_.begin_capture(stream);
  try {
    work();
  } catch (...) {
    try {
      backend_.release_graph(backend_.end_capture(stream));
    } catch (const Error&) {  // of the same fault
    }
    throw;
  }
  return backend_.end_capture(stream);
}

void RoundGraphs::make_room() {
  const auto oldest = std::find_if(entries_.rbegin(), entries_.rend(),
                                   [](const Entry& entry) { return entry.graph != nullptr; });
  backend_.release_graph(oldest->graph);
  oldest->graph = nullptr;
  --graphs_;
}

}  // namespace redrafter
