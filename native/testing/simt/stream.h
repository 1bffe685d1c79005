// Streams. Work of one is done at once; or recorded, while it captures; or, on a late one, when somebody
// waits for it or the device has to be idle, which is as late as CUDA may do it.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "testing/simt/runtime.h"

namespace redrafter::simt {

// Gives what went wrong, as text that lives on, or null.
using Work = std::function<const char*()>;

struct LateWork {
  Work run;
  const void* host;  // memory of the host that it reads or writes, or null
  size_t host_bytes;
};

// Whether work of the stream is not to be done now; then defer() takes it.
bool defers(cudaStream_t stream);
void defer(cudaStream_t stream, Work work, const void* host = nullptr, size_t host_bytes = 0);

// Does what waits in a late stream; what went wrong in it since it began, or null. The rest is dropped then.
const char* catch_up(cudaStream_t stream);
void catch_up_all();
// Work that waits to read or write memory of the host which is about to be freed is never done: its stream
// fails.
void drop_work_on(const void* host, size_t bytes);

// The error of a graph or late stream in which this went wrong, or cudaSuccess; and what the last one of this
// thread said.
cudaError_t report_fault(const char* fault);
const char* fault_text();

}  // namespace redrafter::simt

struct CUgraph_st {
  std::vector<redrafter::simt::Work> work;  // in order
};

struct CUgraphExec_st {
  std::shared_ptr<const CUgraph_st> graph;
};

struct CUstream_st {
  CUgraph_st* records = nullptr;
  bool late = false;
  std::deque<redrafter::simt::LateWork> waiting;
  const char* fault = nullptr;  // of a late stream
};
