// The table of all ops, one column per backend. Everything above this file calls ops through a Backend and
// never names one. Reading order: this file, then the header of any op; x.cc beside it is the plain-loop
// oracle, x_simd.cc the fast version.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "base/reason.h"
#include "ops/act.h"
#include "ops/adjust.h"
#include "ops/attention.h"
#include "ops/beam.h"
#include "ops/drafter.h"
#include "ops/embed.h"
#include "ops/kv.h"
#include "ops/matmul.h"
#include "ops/norm.h"
#include "ops/rope.h"
#include "ops/sample.h"
#include "ops/tree.h"

namespace redrafter {

template <typename Params>
using Op = void (*)(const Params&, Stream&);

// What a stream is opened for. kCopies: for uploads and downloads and the ops of ops/kv.h, which need no
// workspace.
enum class StreamUse { kOps, kCopies };

struct Backend {
  const char* name;   // "cpu"; the CUDA companion adds "cuda"
  const char* level;  // "avx512vnni", "avx512", "avx2", "neon", "base", "oracle"

  Op<PackParams> matmul_pack;
  Op<EmbedParams> embed;
  Op<NormParams> norm;
  Op<MatmulParams> matmul;
  Op<RopeParams> rope;
  Op<AttentionParams> attention;
  Op<ActParams> act;
  Op<AdjustParams> adjust;
  Op<AdjustParams> adjust_undo;
  Op<SampleParams> sample;
  Op<LogprobParams> logprob;
  Op<CellParams> cell;
  Op<MixParams> mix;
  Op<ResidualParams> residual;
  Op<HeadTopParams> head_top;
  Op<BeamStartParams> beam_start;
  Op<BeamParams> beam;
  Op<TreePackParams> tree_pack;
  Op<TreeRowsParams> tree_rows;
  Op<TreeAcceptParams> tree_accept;
  Op<KeepHiddenParams> keep_hidden;
  Op<KvCompactParams> kv_compact;
  Op<KvCopyBlockParams> kv_copy_block;
  Op<KvBlockParams> kv_export;
  Op<KvBlockParams> kv_import;

  // Sizes that depend on the layouts of base/tensor.h. kv_layout: strides and dtype, for weights of a dtype.
  int64_t (*matrix_bytes)(int64_t rows, int64_t cols, DType dtype);
  KvLayer (*kv_layout)(int64_t kv_heads, int64_t head_dim, DType weights);
  // Whether matrices can have this dtype.
  bool (*takes)(DType);

  // Whether its memory is the host's: then reading from it waits for nothing.
  bool host_memory;

  // How many bytes of its memory are free, and how many there are. False when that is not known; null where
  // the memory is the host's.
  bool (*memory)(uint64_t* free, uint64_t* total);

  // Memory the ops work on. allocate throws ERR_OOM. Copies are ordered after earlier ops of the stream and
  // have ended when they return; threads may copy at the same time, each on a stream of its own.
  void* (*allocate)(size_t bytes);
  void (*release)(void* memory);
  void (*upload)(void* to, const void* from, size_t bytes, Stream&);
  void (*download)(void* to, const void* from, size_t bytes, Stream&);
  void (*copy)(void* to, const void* from, size_t bytes,
               Stream&);  // inside the backend; an op like any other

  void (*wait)(Stream&);  // until all earlier ops of the stream have ended

  // Copies that nobody waits for: the host's side is memory of allocate_host, and stays as it is until
  // wait().
  void* (*allocate_host)(size_t bytes);  // throws ERR_OOM
  void (*release_host)(void* memory);
  void (*upload_later)(void* to, const void* from, size_t bytes, Stream&);
  void (*download_later)(void* to, const void* from, size_t bytes, Stream&);

  // Ops between begin and end are recorded instead of run, and launch_graph runs them all, as often as
  // wanted, on what memory then holds. Null where there is no such thing.
  void (*begin_capture)(Stream&);
  void* (*end_capture)(Stream&);
  void (*launch_graph)(void* graph, Stream&);
  void (*release_graph)(void* graph);

  // Gives a stream what its ops need of this backend, and takes it back. open throws ERR_OOM. For all ops it
  // takes stream_bytes of the backend's memory.
  void (*open_stream)(Stream&, StreamUse);
  void (*close_stream)(Stream&);
  int64_t stream_bytes;
};

// One backend or level of the CPU backend, with the reason when it cannot run here.
struct BackendStatus {
  std::string device;  // as find_backend takes it
  const char* backend;
  std::string level;      // empty where no level can be named
  Reason reason;          // with a code when it cannot be used
  bool selected = false;  // what "auto" takes
};

// "cpu" (the best level here), a CPU level by name ("cpu:avx2", "cpu:oracle"), "cuda" (the first device) or
// "cuda:N", or "auto": "cuda" when that works (companion.h), else "cpu", and then *not_cuda is why.
// Throws ERR_BACKEND with the reason when the device is not available.
const Backend& find_backend(const std::string& device, Reason* not_cuda = nullptr);

// Backends that find_backend is to know beside its own: null for a device that is none of them. For tests;
// set before anything is loaded.
using FindMore = const Backend* (*)(const std::string& device);
void find_more_backends(FindMore find);

// Best first. Without the oracle, which is there for tests.
std::vector<BackendStatus> list_backends();

// A copy of `backend` that hands out no memory: allocate gives null, streams open with nothing and copies do
// nothing, so that code which allocates can be run to add up how much it would take. Ops must not be called.
Backend measuring(Backend backend);

// A stream of a backend, closed with its owner.
class BackendStream {
 public:
  BackendStream(const Backend& backend, ThreadPool* threads, StreamUse use = StreamUse::kOps)
      : backend_(backend) {
    stream_.threads = threads;
    backend_.open_stream(stream_, use);
  }
  BackendStream(const BackendStream&) = delete;
  BackendStream& operator=(const BackendStream&) = delete;
  ~BackendStream() { backend_.close_stream(stream_); }
  Stream& get() { return stream_; }

 private:
  const Backend& backend_;
  Stream stream_;
};

// Memory of the host that a backend copies from and to while nobody waits.
class HostBuffer {
 public:
  HostBuffer(const Backend& backend, size_t bytes)
      : backend_(backend), data_(bytes == 0 ? nullptr : backend.allocate_host(bytes)) {}
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  ~HostBuffer() {
    if (data_ != nullptr) backend_.release_host(data_);
  }
  void* data() const { return data_; }

 private:
  const Backend& backend_;
  void* data_;
};

// Memory of a backend, freed with its owner. On a measuring backend it has a size and no data.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(const Backend& backend, size_t bytes)
      : backend_(&backend), data_(bytes == 0 ? nullptr : backend.allocate(bytes)), bytes_(bytes) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceBuffer() {
    if (data_ != nullptr) backend_->release(data_);
  }

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void swap(DeviceBuffer& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  const Backend* backend_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace redrafter
