// How every variant of matmul ends: the sums of a lane, bias, residual, y.
#pragma once

#include "base/device.cuh"
#include "ops/matmul.h"

namespace redrafter {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpThreads;
constexpr int kMaxSplits = 8;

__device__ __forceinline__ float4 as_float4(const float (&sums)[4]) {
  return {sums[0], sums[1], sums[2], sums[3]};
}

__device__ __forceinline__ float4 add(const float4& a, const float4& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

// Bias and residual of the 4 outputs that a lane has of a strip and a column of rows.
struct Addends {
  float bias[2], residual[4];
};

// Output i of lane: the strip's row and the column's row.
__device__ __forceinline__ int output_of(int i, int lane) { return i / 2 * 8 + lane / 4; }
__device__ __forceinline__ int row_of(int i, int lane) { return lane % 4 * 2 + i % 2; }

// n: the first output of the strip, m: the first row of the column.
__device__ __forceinline__ Addends load_addends(const MatmulParams& p, int64_t n, int64_t m, int lane) {
  Addends addends = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t output = n + output_of(i, lane), row = m + row_of(i, lane);
    if (output >= p.w.rows || row >= p.rows) continue;
    if (p.bias != nullptr) addends.bias[i / 2] = p.bias[output];
    if (p.residual != nullptr) addends.residual[i] = p.residual[row * p.y_stride + output];
  }
  return addends;
}

__device__ __forceinline__ void add_addends(const MatmulParams& p, float4& sums, const Addends& addends) {
  if (p.bias != nullptr) {
    sums = add(sums, {addends.bias[0], addends.bias[0], addends.bias[1], addends.bias[1]});
  }
  if (p.residual != nullptr) sums = add(sums, as_float4(addends.residual));
}

__device__ __forceinline__ void store_outputs(const MatmulParams& p, int64_t n, int64_t m, int lane,
                                              const float4& sums) {
  const float sum[4] = {sums.x, sums.y, sums.z, sums.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t output = n + output_of(i, lane), row = m + row_of(i, lane);
    if (output < p.w.rows && row < p.rows) p.y[row * p.y_stride + output] = sum[i];
  }
}

}  // namespace
}  // namespace redrafter
