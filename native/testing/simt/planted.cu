#include "base/ptx.cuh"
#include "testing/simt/planted.h"

namespace redrafter::testing {
namespace {

__device__ int64_t thread_number() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

// out[block] = sum of the block's part of in, through shared memory.
__global__ void block_sum_kernel(Planted p) {
  __shared__ uint32_t part[1024];
  const unsigned i = threadIdx.x;
  part[i] = p.in[thread_number()];
  __syncthreads();
  for (unsigned step = 1; step < blockDim.x; step *= 2) {
    const uint32_t other = i + step < blockDim.x ? part[i + step] : 0;
    __syncthreads();
    part[i] += other;
    __syncthreads();
  }
  if (i == 0) p.out[blockIdx.x] = part[0];
}

// 8 words of each thread: shuffles and votes over in.
__global__ void collectives_kernel(Planted p) {
  const uint32_t v = p.in[thread_number()];
  const int lane = static_cast<int>(threadIdx.x % 32);
  uint32_t* out = p.out + thread_number() * 8;
  out[0] = __shfl_sync(kAllLanes, v, (lane * 7) % 32);
  out[1] = __shfl_xor_sync(kAllLanes, v, 5);
  out[2] = __shfl_up_sync(kAllLanes, v, 3);
  out[3] = __shfl_down_sync(kAllLanes, v, 3, 8);
  const uint64_t wide = __shfl_xor_sync(kAllLanes, uint64_t{v} << 32 | ~v, 16);
  out[4] = static_cast<uint32_t>(wide >> 32) ^ static_cast<uint32_t>(wide);
  out[5] = __ballot_sync(kAllLanes, v & 1);
  out[6] = static_cast<uint32_t>(__any_sync(kAllLanes, v == 7) + 2 * __all_sync(kAllLanes, v >= 7));
  out[7] = static_cast<uint32_t>(__syncthreads_count(v & 1));
}

// Half of the block leaves before a barrier.
__global__ void divergent_barrier_kernel(Planted p) {
  if (threadIdx.x >= blockDim.x / 2) return;
  __syncthreads();
  p.out[0] = 1;
}

// in: a 16 x 16 (halves), b 8 columns of 16, d 16 x 8 floats; out: d + a b.
template <typename T>
__global__ void mma_kernel(Planted p) {
  const int lane = static_cast<int>(threadIdx.x), group = lane / 4, member = lane % 4;
  const uint32_t *a_words = p.in, *b_words = p.in + 128, *d_words = p.in + 192;  // two elements a word
  uint32_t a[4], b[2];
  float d[4];
  for (int i = 0; i < 4; ++i) {
    a[i] = a_words[(group + i % 2 * 8) * 8 + member + i / 2 * 4];
    d[i] = __uint_as_float(d_words[(group + i / 2 * 8) * 8 + 2 * member + i % 2]);
  }
  for (int i = 0; i < 2; ++i) b[i] = b_words[group * 8 + member + i * 4];
  mma_16x8x16<T>(d, a, b[0], b[1]);
  for (int i = 0; i < 4; ++i) p.out[(group + i / 2 * 8) * 8 + 2 * member + i % 2] = __float_as_uint(d[i]);
}

// in: four 8 x 8 matrices of 16-bit elements; 10 words of each lane: plain, transposed, the last two alone.
__global__ void ldmatrix_kernel(Planted p) {
  __shared__ __align__(16) uint32_t matrices[128];
  const unsigned lane = threadIdx.x;
  for (unsigned i = lane; i < 128; i += 32) matrices[i] = p.in[i];
  __syncwarp();
  uint32_t plain[4], transposed[4], two[2];
  ldmatrix_x4(plain, matrices + lane * 4);
  ldmatrix_x4_transposed(transposed, matrices + lane * 4);
  ldmatrix_x2(two, matrices + 64 + lane % 16 * 4);
  uint32_t* out = p.out + lane * 10;
  for (unsigned i = 0; i < 4; ++i) out[i] = plain[i], out[4 + i] = transposed[i];
  for (unsigned i = 0; i < 2; ++i) out[8 + i] = two[i];
}

// Each thread copies four pieces of 16 bytes, two a group; the pieces 3, 8, 13, ... are zeros. Another thread
// writes them out.
__global__ void async_copy_kernel(Planted p) {
  uint4* pieces = dynamic_shared<uint4>();
  const unsigned count = blockDim.x * 4, first = threadIdx.x, base = blockIdx.x * count;
  const uint4* in = reinterpret_cast<const uint4*>(p.in) + base;
  uint4* out = reinterpret_cast<uint4*>(p.out) + base;
  const auto start = [&](unsigned i) { copy_async_16(&pieces[i], &in[i], (base + i) % 5 != 3); };
  start(first), start(first + blockDim.x);
  copy_async_commit();
  start(first + 2 * blockDim.x), start(first + 3 * blockDim.x);
  copy_async_commit();
  copy_async_wait<1>();
  __syncthreads();
  const unsigned other = blockDim.x - 1 - first;
  for (unsigned i = 0; i < 2; ++i) out[other + i * blockDim.x] = pieces[other + i * blockDim.x];
  copy_async_wait<0>();
  __syncthreads();
  for (unsigned i = 2; i < 4; ++i) out[other + i * blockDim.x] = pieces[other + i * blockDim.x];
}

using Kernel = void (*)(Planted);
struct Named {
  const char* name;
  Kernel kernel;
  size_t shared_bytes;
};
constexpr Named kKernels[] = {
    {"block sum", block_sum_kernel, 0},
    {"collectives", collectives_kernel, 0},
    {"divergent barrier", divergent_barrier_kernel, 0},
    {"mma bf16", mma_kernel<Bf16>, 0},
    {"ldmatrix", ldmatrix_kernel, 0},
    {"async copy", async_copy_kernel, 64 * 1024},
    {"mma f16", mma_kernel<Fp16>, 0},
};

}  // namespace

bool run_planted(const std::string& name, const Planted& p, Stream& stream) {
  for (const Named& entry : kKernels) {
    if (name != entry.name) continue;
    launch(entry.name, entry.kernel, dim3(p.blocks), dim3(p.threads), entry.shared_bytes, stream, p);
    return true;
  }
  return false;
}

}  // namespace redrafter::testing
