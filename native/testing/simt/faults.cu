// Kernels with a planted fault each, and their right counterparts. in and out have a word for every thread of
// the grid.
#include "base/ptx.cuh"
#include "testing/simt/planted.h"

namespace redrafter::testing {
namespace {

__device__ unsigned thread_number() { return blockIdx.x * blockDim.x + threadIdx.x; }

// --- races in a block

enum class Order { kNone, kShuffle, kWarp, kBlock };

template <Order order>
__device__ void meet() {
  if constexpr (order == Order::kShuffle) __shfl_sync(kAllLanes, 1, 0);
  if constexpr (order == Order::kWarp) __syncwarp();
  if constexpr (order == Order::kBlock) __syncthreads();
}

// Writes a word, reads that of the thread at the other end of `span` threads.
template <Order order>
__global__ void exchange_kernel(Planted p, unsigned span) {
  __shared__ uint32_t words[1024];
  const unsigned i = threadIdx.x;
  words[i] = p.in[thread_number()];
  meet<order>();
  p.out[thread_number()] = words[i / span * span + span - 1 - i % span];
}

// Every thread reads a word, then one writes it.
template <Order order>
__global__ void write_after_read_kernel(Planted p, unsigned writer) {
  __shared__ uint32_t word;
  if (threadIdx.x == 0) word = p.in[0];
  __syncthreads();
  const uint32_t before = word;
  meet<order>();
  if (threadIdx.x == writer) word = 1;
  p.out[thread_number()] = before;
}

// Neighbours write the two halves of a word.
__global__ void halves_kernel(Planted p) {
  uint16_t* halves = reinterpret_cast<uint16_t*>(p.out);
  halves[threadIdx.x] = static_cast<uint16_t>(p.in[threadIdx.x]);
  __syncthreads();
  if (threadIdx.x == 0) p.out[0] += 1;
}

template <bool all>
__global__ void atomics_kernel(Planted p) {
  __shared__ uint32_t sum;
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  if (all || threadIdx.x != 5) {
    atomicAdd(&sum, p.in[threadIdx.x]);
  } else {
    sum = 7;
  }
  __syncthreads();
  p.out[threadIdx.x] = sum;
}

// --- races between blocks

__global__ void same_word_kernel(Planted p) {
  if (threadIdx.x == 0) p.out[0] = blockIdx.x;
}

// Reads what another block changes.
__global__ void in_place_kernel(Planted p) {
  if (threadIdx.x == 0) p.out[blockIdx.x] = p.out[(blockIdx.x + 1) % gridDim.x];
}

// All blocks count; the last one to come adds up what all have written.
template <bool writers_fence, bool counter_fences, bool meets, bool reader_fences>
__global__ void last_arriver_kernel(Planted p) {
  __shared__ bool last;
  p.out[thread_number()] = p.in[thread_number()];
  if (writers_fence) __threadfence();
  if (meets) __syncthreads();
  if (threadIdx.x == 0) {
    if (counter_fences) __threadfence();
    last = atomicAdd(p.counters, 1u) + 1 == gridDim.x;
    if (last && reader_fences) __threadfence();
  }
  __syncthreads();
  if (!last) return;
  if (threadIdx.x == 0) *p.counters = 0;
  uint32_t sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += p.out[i * blockDim.x + threadIdx.x];
  p.out[threadIdx.x] = sum;
}

// --- out of bounds

enum class Place { kGlobal, kDynamic, kStatic, kPointer };

template <typename T, bool writes>
__global__ void global_kernel(Planted p, int64_t byte) {
  if (threadIdx.x != 3) return;
  T* at = reinterpret_cast<T*>(reinterpret_cast<char*>(p.out) + byte);
  if (writes) {
    *at = 1;
  } else {
    p.out[0] = *at;
  }
}

template <bool writes>
__global__ void dynamic_kernel(Planted p, int index) {
  uint32_t* words = dynamic_shared<uint32_t>();
  if (writes) {
    words[index] = 1;
  } else {
    p.out[threadIdx.x] = words[index];
  }
}

__global__ void static_kernel(Planted p, int index) {
  __shared__ uint32_t words[64];
  words[index + static_cast<int>(threadIdx.x)] = 1;
  __syncthreads();
  p.out[threadIdx.x] = words[threadIdx.x];
}

__global__ void parameter_kernel(Planted p, const uint32_t* host) { p.out[threadIdx.x] = host[0]; }

__global__ void other_stack_kernel(Planted p) {
  uint32_t own = p.in[threadIdx.x];
  uint32_t* volatile mine = &own;
  const auto other = __shfl_xor_sync(kAllLanes, reinterpret_cast<uint64_t>(mine), 1);
  p.out[threadIdx.x] = *reinterpret_cast<uint32_t*>(other);
}

// --- alignment

__global__ void misaligned_member_kernel(Planted p) {
  p.out[threadIdx.x] = reinterpret_cast<const uint4*>(p.in + 1)->w;
}
__global__ void misaligned_load_kernel(Planted p) {
  const uint4 v = *reinterpret_cast<const uint4*>(p.in + 1);
  p.out[threadIdx.x] = v.x + v.w;
}
__global__ void misaligned_stream_kernel(Planted p) { p.out[threadIdx.x] = load_stream_16(p.in + 1).x; }
__global__ void misaligned_ldmatrix_kernel(Planted p) {
  uint32_t* words = dynamic_shared<uint32_t>();
  uint32_t r[2];
  ldmatrix_x2(r, words + 2);
  p.out[threadIdx.x] = r[0];
}
__global__ void misaligned_copy_kernel(Planted p) {
  copy_async_16(dynamic_shared<uint32_t>() + 1, p.in);
  copy_async_commit();
  copy_async_wait<0>();
}

// --- divergence

__global__ void half_warp_kernel(Planted p) {
  if (threadIdx.x < 16) {
    p.out[threadIdx.x] = __shfl_sync(kAllLanes, 1u, 0);
  } else {
    __syncwarp();
  }
}
__global__ void mask_kernel(Planted p) { p.out[threadIdx.x] = __shfl_sync(0xffffu, 1u, 0); }
__global__ void lane_leaves_kernel(Planted p) {
  if (threadIdx.x == 9) return;
  p.out[threadIdx.x] = __ballot_sync(kAllLanes, 1);
}
__global__ void barriers_kernel(Planted p) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    p.out[threadIdx.x] = static_cast<uint32_t>(__syncthreads_or(1));
  }
}

// --- asynchronous copies

// Each thread copies 16 bytes and reads a word of another's, or of its own.
template <bool own, bool waits, bool meets>
__global__ void early_kernel(Planted p) {
  uint32_t* words = dynamic_shared<uint32_t>();
  const unsigned i = threadIdx.x;
  for (unsigned k = 0; k < 4; ++k) words[4 * i + k] = 0;
  copy_async_16(words + 4 * i, p.in + 4 * i);
  copy_async_commit();
  if (waits) {
    copy_async_wait<0>();
  } else {
    copy_async_wait<1>();
  }
  if (meets) __syncthreads();
  p.out[i] = words[4 * (own ? i : blockDim.x - 1 - i)];
}

template <typename... Params, typename... Args>
auto with(void (*kernel)(Planted, Params...), size_t shared_bytes, Args... args) {
  return [=](const char* name, const Planted& p, Stream& stream) {
    launch(name, kernel, dim3(p.blocks), dim3(p.threads), shared_bytes, stream, p, args...);
  };
}

}  // namespace

bool run_fault(const std::string& name, const Planted& p, Stream& stream) {
  const auto bytes = static_cast<int64_t>(sizeof(uint32_t)) * p.out_count;
  const auto is = [&](const char* other, const auto& run) {
    if (name != other) return false;
    run(other, p, stream);
    return true;
  };
  static const uint32_t host_word = 7;
  const auto* heap = reinterpret_cast<const uint32_t*>(&stream);
  return is("shared, no barrier", with(exchange_kernel<Order::kNone>, 0, p.threads)) ||
         is("shared, warp barrier only", with(exchange_kernel<Order::kWarp>, 0, p.threads)) ||
         is("shared, block barrier", with(exchange_kernel<Order::kBlock>, 0, p.threads)) ||
         is("warp, no barrier", with(exchange_kernel<Order::kNone>, 0, 32u)) ||
         is("warp, shuffle only", with(exchange_kernel<Order::kShuffle>, 0, 32u)) ||
         is("warp, barrier", with(exchange_kernel<Order::kWarp>, 0, 32u)) ||
         is("write after reads, no barrier", with(write_after_read_kernel<Order::kNone>, 0, 0u)) ||
         is("write after reads, warp barrier", with(write_after_read_kernel<Order::kWarp>, 0, 0u)) ||
         is("write after reads, block barrier", with(write_after_read_kernel<Order::kBlock>, 0, 0u)) ||
         is("halves", with(halves_kernel, 0)) || is("atomics", with(atomics_kernel<true>, 0)) ||
         is("atomics and a write", with(atomics_kernel<false>, 0)) ||
         is("blocks, same word", with(same_word_kernel, 0)) ||
         is("blocks, in place", with(in_place_kernel, 0)) ||
         is("last arriver, writers fence", with(last_arriver_kernel<true, false, true, true>, 0)) ||
         is("last arriver, counter fences", with(last_arriver_kernel<false, true, true, true>, 0)) ||
         is("last arriver, no fence", with(last_arriver_kernel<false, false, true, true>, 0)) ||
         is("last arriver, no meeting", with(last_arriver_kernel<true, true, false, true>, 0)) ||
         is("last arriver, reader without fence", with(last_arriver_kernel<true, true, true, false>, 0)) ||
         is("write behind", with(global_kernel<uint32_t, true>, 0, bytes)) ||
         is("write a byte behind", with(global_kernel<uint8_t, true>, 0, bytes)) ||
         is("read behind", with(global_kernel<uint32_t, false>, 0, bytes)) ||
         is("write across the end", with(global_kernel<uint64_t, true>, 0, bytes - 4)) ||
         is("write before", with(global_kernel<uint32_t, true>, 0, int64_t{-4})) ||
         is("write far away", with(global_kernel<uint32_t, true>, 0, int64_t{1} << 40)) ||
         is("dynamic write behind", with(dynamic_kernel<true>, 400, 100)) ||
         is("dynamic read before", with(dynamic_kernel<false>, 400, -1)) ||
         is("static write behind", with(static_kernel, 0, 1)) ||
         is("host memory", with(parameter_kernel, 0, heap)) ||
         is("constant", with(parameter_kernel, 0, &host_word)) ||
         is("another stack", with(other_stack_kernel, 0)) ||
         is("misaligned member", with(misaligned_member_kernel, 0)) ||
         is("misaligned load", with(misaligned_load_kernel, 0)) ||
         is("misaligned stream", with(misaligned_stream_kernel, 0)) ||
         is("misaligned ldmatrix", with(misaligned_ldmatrix_kernel, 1024)) ||
         is("misaligned copy", with(misaligned_copy_kernel, 1024)) ||
         is("half a warp", with(half_warp_kernel, 0)) || is("half a mask", with(mask_kernel, 0)) ||
         is("a lane leaves", with(lane_leaves_kernel, 0)) || is("two barriers", with(barriers_kernel, 0)) ||
         is("too much shared memory", with(halves_kernel, 228 * 1024)) ||
         is("copy, waits and meets", with(early_kernel<false, true, true>, 16 * 1024)) ||
         is("copy, own", with(early_kernel<true, true, false>, 16 * 1024)) ||
         is("copy, no barrier", with(early_kernel<false, true, false>, 16 * 1024)) ||
         is("copy, own, no wait", with(early_kernel<true, false, false>, 16 * 1024)) ||
         is("copy, no wait", with(early_kernel<false, false, true>, 16 * 1024));
}

}  // namespace redrafter::testing
