#include "testing/simt/graph.h"

#include <atomic>
#include <utility>

#include "testing/simt/control.h"

namespace {

thread_local const char* fault = nullptr;  // the last one of this thread's work that was put off
std::atomic<uint64_t> launched{0}, captured{0}, destroyed{0};

const char* run_all(const SimtWork& work) {
  for (const auto& run : work) {
    if (const char* problem = run(); problem != nullptr) return problem;
  }
  return nullptr;
}

}  // namespace

namespace redrafter::simt {

uint64_t graph_launches() { return launched.load(); }
uint64_t graph_captures() { return captured.load(); }
uint64_t graphs_alive() { return captured.load() - destroyed.load(); }
const char* graph_fault() { return fault; }

cudaError_t finish_work(cudaStream_t stream) {
  if (stream == nullptr || stream->put_off.empty()) return cudaSuccess;
  const SimtWork work = std::exchange(stream->put_off, {});
  const char* problem = run_all(work);
  if (problem == nullptr) return cudaSuccess;
  fault = problem;
  return cudaErrorLaunchFailure;
}

}  // namespace redrafter::simt

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr || stream->records != nullptr) return cudaErrorInvalidValue;
  stream->records = new CUgraph_st;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (stream == nullptr || stream->records == nullptr) return cudaErrorInvalidValue;
  *graph = stream->records;
  stream->records = nullptr;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* launchable, cudaGraph_t graph, unsigned long long) {
  ++captured;
  *launchable = new CUgraphExec_st{std::make_shared<const SimtWork>(graph->work)};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t launchable, cudaStream_t stream) {
  if (stream == nullptr || stream->records != nullptr) return cudaErrorInvalidValue;
  ++launched;
  stream->put_off.push_back([work = launchable->work] { return run_all(*work); });
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t launchable) {
  if (launchable != nullptr) ++destroyed;
  delete launchable;
  return cudaSuccess;
}
