// What the CUDA library (redrafter_cuda.so, cuda_entry.cu) and the addon that opens it (companion.cc) agree
// on.
#pragma once

#include "ops/ops.h"

namespace redrafter {

// One device, as the library describes it.
struct CudaDevice {
  char name[256];
  int32_t major, minor;  // compute capability
};

// What the companion library exports. `stamp` comes first in every version of it; the rest may be read only
// when that is kCudaStamp. Nothing here throws.
struct CudaEntry {
  uint64_t stamp;
  Backend table;

  // The version of the driver and of the CUDA runtime, as 1000 major + 10 minor; 0 where there is no driver.
  void (*versions)(int32_t* driver, int32_t* runtime);
  // How many devices there are; where they cannot be asked, 0 and why.
  int32_t (*count)(const char** error);
  bool (*describe)(int32_t device, CudaDevice* description);
  // The device that the calls of this thread from now on mean.
  void (*select)(int32_t device);
  // Of the selected device. False when it cannot be asked.
  bool (*memory)(uint64_t* free, uint64_t* total);
};

constexpr uint64_t kCudaVersion = 2;  // goes up when a call changes its meaning and no size

// Differs between an addon and a library that would misread each other's structures, or that belong to
// different releases.
constexpr uint64_t cuda_stamp() {
  uint64_t stamp = 0xcbf29ce484222325u ^ kCudaVersion;  // FNV-1a
  const auto add = [&](uint64_t value) { stamp = (stamp ^ value) * 0x100000001b3u; };
  for (const char* c = REDRAFTER_VERSION; *c != '\0'; ++c) add(static_cast<unsigned char>(*c));
  for (
      const size_t size :
      {sizeof(CudaEntry),        sizeof(CudaDevice),       sizeof(Backend),         sizeof(Stream),
       sizeof(Matrix),           sizeof(KvLayer),          sizeof(Batch),           sizeof(PackParams),
       sizeof(EmbedParams),      sizeof(NormParams),       sizeof(MatmulParams),    sizeof(RopeParams),
       sizeof(AttentionParams),  sizeof(ActParams),        sizeof(SampleParams),    sizeof(LogprobParams),
       sizeof(CellParams),       sizeof(MixParams),        sizeof(ResidualParams),  sizeof(HeadTopParams),
       sizeof(BeamStartParams),  sizeof(BeamParams),       sizeof(TreePackParams),  sizeof(TreeRowsParams),
       sizeof(TreeAcceptParams), sizeof(KeepHiddenParams), sizeof(KvCompactParams), sizeof(KvCopyBlockParams),
       sizeof(KvBlockParams),    sizeof(SampleSpec),       sizeof(AdjustParams),    sizeof(AdjustLane),
       sizeof(AdjustEntry)}) {
    add(size);
  }
  return stamp;
}

}  // namespace redrafter
