// Graphs: launches and copies that a stream has recorded instead of doing them, to be done again and again.
#include <atomic>

#include "testing/simt/control.h"
#include "testing/simt/stream.h"

namespace {

thread_local const char* last_fault = nullptr;  // of a graph or late stream of this thread
std::atomic<uint64_t> launched{0}, captured{0}, destroyed{0};

const char* run_all(const CUgraph_st& graph) {
  for (const auto& run : graph.work) {
    if (const char* fault = run(); fault != nullptr) return fault;
  }
  return nullptr;
}

}  // namespace

namespace redrafter::simt {

uint64_t graph_launches() { return launched.load(); }
uint64_t graph_captures() { return captured.load(); }
uint64_t graphs_alive() { return captured.load() - destroyed.load(); }
const char* fault_text() { return last_fault; }
cudaError_t report_fault(const char* fault) {
  if (fault == nullptr) return cudaSuccess;
  last_fault = fault;
  return cudaErrorLaunchFailure;
}

}  // namespace redrafter::simt

using namespace redrafter::simt;

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
  *launchable = new CUgraphExec_st{std::make_shared<CUgraph_st>(*graph)};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t launchable, cudaStream_t stream) {
  if (stream == nullptr || stream->records != nullptr) return cudaErrorInvalidValue;
  ++launched;
  if (!defers(stream)) return report_fault(run_all(*launchable->graph));
  defer(stream, [graph = launchable->graph] { return run_all(*graph); });
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
