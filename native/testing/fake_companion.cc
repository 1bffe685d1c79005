// A CUDA library without CUDA: test/native/companion.test.ts compiles it with what it shall say of driver and
// devices. Device 0 is new enough and device 1 is not; calls fail as those of CUDA do, and copies work.
#include <cstdio>
#include <cstring>

#include "ops/cuda_entry.h"

#ifndef FAKE_STAMP
#define FAKE_STAMP cuda_stamp()
#endif
#ifndef FAKE_DRIVER
#define FAKE_DRIVER 13000
#endif
#ifndef FAKE_COUNT
#define FAKE_COUNT 2
#endif
#ifndef FAKE_ERROR
#define FAKE_ERROR nullptr
#endif

namespace redrafter {
namespace {

int32_t selected = -1;
char error[64];

void versions(int32_t* driver, int32_t* runtime) {
  *driver = FAKE_DRIVER;
  *runtime = 13000;
}

int32_t count(const char** why) {
  *why = FAKE_ERROR;
  return FAKE_COUNT;
}

bool describe(int32_t device, CudaDevice* description) {
  std::snprintf(description->name, sizeof description->name, "Device %d", device);
  description->major = device == 1 ? 7 : 9;
  description->minor = device == 1 ? 5 : 0;
  return true;
}

void select(int32_t device) { selected = device; }

bool memory(uint64_t* free, uint64_t* total) {
  *free = uint64_t{5} << 20;
  *total = uint64_t{80} << 30;
  return true;
}

void norm(const NormParams&, Stream& stream) {
  std::snprintf(error, sizeof error, "a fault on device %d", selected);
  stream.error = error;
  stream.failed = "norm_kernel";
}

void copy(void* to, const void* from, size_t bytes, Stream&) { std::memcpy(to, from, bytes); }

void open_stream(Stream& stream, StreamUse) {
  stream.cuda = &selected;
  stream.error = "out of memory";
  stream.failed = "open stream";
}

void close_stream(Stream& stream) { stream = Stream{stream.threads}; }

Backend table() {
  Backend b{};
  b.name = "cuda";
  b.norm = norm;
  b.matrix_bytes = [](int64_t rows, int64_t cols, DType) { return 2 * rows * cols; };
  b.kv_layout = [](int64_t, int64_t, DType) { return KvLayer{nullptr, nullptr, DType::kBF16, 1, 1, 1, 1}; };
  b.takes = [](DType dtype) { return dtype == DType::kBF16; };
  b.allocate = [](size_t) -> void* { return nullptr; };
  b.release = [](void*) {};
  b.upload = b.download = copy;
  b.wait = [](Stream&) {};
  b.open_stream = open_stream;
  b.close_stream = close_stream;
  b.stream_bytes = 1000;
  return b;
}

}  // namespace
}  // namespace redrafter

extern "C" __attribute__((visibility("default"))) const redrafter::CudaEntry* redrafter_cuda_entry() {
  using namespace redrafter;
  static const CudaEntry entry = {FAKE_STAMP, table(), versions, count, describe, select, memory};
  return &entry;
}
