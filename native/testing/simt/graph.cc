#include "testing/simt/graph.h"

#include <atomic>

#include "testing/simt/control.h"

namespace {

thread_local const char* fault = nullptr;  // of the last graph of this thread that failed
std::atomic<uint64_t> launched{0};

}  // namespace

namespace redrafter::simt {

uint64_t graph_launches() { return launched.load(); }
const char* graph_fault() { return fault; }

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
  *launchable = new CUgraphExec_st{*graph};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t launchable, cudaStream_t stream) {
  if (stream == nullptr || stream->records != nullptr) return cudaErrorInvalidValue;
  ++launched;
  for (const auto& run : launchable->graph.work) {
    fault = run();
    if (fault != nullptr) return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t launchable) {
  delete launchable;
  return cudaSuccess;
}
