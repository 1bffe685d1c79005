// Streams, which put off what nobody waits for, and graphs: launches and copies that a stream has recorded
// instead of running them, to be run again and again.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "testing/simt/runtime.h"

// Things to do, in order. One gives what went wrong, as text that lives on, or null.
using SimtWork = std::vector<std::function<const char*()>>;

// Graphs, and copies from and to pinned memory, run as late as they may: when the stream is waited for or
// gets something else to do. So a host that changes or reads its memory too early is found out, as it would
// be on a device some day.
struct CUstream_st {
  CUgraph_st* records = nullptr;
  SimtWork put_off;
};

struct CUgraph_st {
  SimtWork work;
};

struct CUgraphExec_st {
  std::shared_ptr<const SimtWork> work;
};

namespace redrafter::simt {

// Does what the stream has put off. cudaErrorLaunchFailure: something went wrong; the rest is dropped.
cudaError_t finish_work(cudaStream_t stream);

}  // namespace redrafter::simt
