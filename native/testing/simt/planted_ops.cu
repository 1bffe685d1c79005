#include "base/device.cuh"
#include "testing/simt/planted_ops.h"

namespace redrafter::testing {
namespace {

constexpr unsigned kThreads = 64;
constexpr int64_t kParts = 4;

enum class MatmulFault {
  kNone,
  kFixedSplit,
  kSplitByRows,
  kLeak,
  kAtomicSum,
  kOverrun,
  kWorkspaceOverrun,
  kCounterLeft
};

template <typename T>
__device__ float weight(const Matrix& w, int64_t n, int64_t k) {
  return T::to_float(static_cast<const uint16_t*>(w.data)[fragment_index(n, k, w.cols)]);
}

// A thread computes one output; with kAtomicSum, a part of it.
template <typename T, MatmulFault fault>
__global__ void matmul_kernel(MatmulParams p, int64_t parts) {
  int64_t task = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (task >= p.rows * p.w.rows * (fault == MatmulFault::kAtomicSum ? parts : 1)) return;
  int64_t first = 0, last = parts;
  if (fault == MatmulFault::kAtomicSum) {
    first = task % parts, last = first + 1;
    task /= parts;
  }
  const int64_t row = task / p.w.rows, n = task % p.w.rows;
  float y = 0.0f;
  for (int64_t part = first; part < last; ++part) {
    float sum = 0.0f;
    for (int64_t k = part * p.w.cols / parts; k < (part + 1) * p.w.cols / parts; ++k) {
      sum = fmaf(T::to_float(T::from_float(p.x[row * p.x_stride + k])), weight<T>(p.w, n, k), sum);
    }
    y += sum;
  }
  if (fault == MatmulFault::kLeak) {
    for (int64_t other = 0; other < p.rows; ++other) {
      if (other != row) y = fmaf(0.0f, p.x[other * p.x_stride], y);
    }
  }
  float* out = p.y + row * p.y_stride + n;
  if (fault == MatmulFault::kAtomicSum) {
    atomicAdd(out, y);
    return;
  }
  const float residual = p.residual == nullptr ? 0.0f : p.residual[row * p.y_stride + n];
  *out = y + (p.bias == nullptr ? 0.0f : p.bias[n]) + residual;
}

__global__ void spoil_kernel(float* place) { *place = 1.0f; }
__global__ void zero_kernel(MatmulParams p) {
  for (int64_t n = 0; n < p.w.rows; ++n) p.y[blockIdx.x * p.y_stride + n] = 0.0f;
}

template <MatmulFault fault>
void matmul(const MatmulParams& p, Stream& stream) {
  int64_t parts = fault == MatmulFault::kNone ? 1 : kParts;
  if (fault == MatmulFault::kSplitByRows && p.rows > 8) parts = 1;
  const int64_t tasks = p.rows * p.w.rows * (fault == MatmulFault::kAtomicSum ? parts : 1);
  if (fault == MatmulFault::kAtomicSum) {
    launch("planted zero", zero_kernel, dim3(static_cast<unsigned>(p.rows)), dim3(1), 0, stream, p);
  }
  const dim3 grid(static_cast<unsigned>(ceil_div(tasks, kThreads)));
  with_element(p.w.dtype, [&](auto element) {
    launch("planted matmul", matmul_kernel<decltype(element), fault>, grid, dim3(kThreads), 0, stream, p,
           parts);
  });
  float* spoiled = p.y + (p.rows - 1) * p.y_stride + p.w.rows;
  if (fault == MatmulFault::kWorkspaceOverrun) {
    spoiled = reinterpret_cast<float*>(static_cast<char*>(stream.workspace) + stream.workspace_bytes);
  }
  if (fault == MatmulFault::kCounterLeft) spoiled = reinterpret_cast<float*>(stream.counters) + 3;
  if (fault == MatmulFault::kOverrun || fault == MatmulFault::kWorkspaceOverrun ||
      fault == MatmulFault::kCounterLeft) {
    launch("planted overrun", spoil_kernel, dim3(1), dim3(1), 0, stream, spoiled);
  }
}

enum class AttentionFault { kNone, kNoSiblingMask, kNoNanGuard };

struct Place {
  int32_t slot;
  bool seen;
};

// The j-th slot that a row looks at.
template <AttentionFault fault>
__device__ Place place(const Batch& b, int64_t row, int64_t j) {
  const int32_t context = b.context[row];
  const int64_t looked = fault == AttentionFault::kNoNanGuard ? ceil_to(context, kBlockTokens) : context;
  if (j < looked) return {static_cast<int32_t>(j), j < context};
  if (fault == AttentionFault::kNoSiblingMask) return {static_cast<int32_t>(j), true};
  return {b.tail_slots[b.tail_begin[row] + j - looked], true};
}

template <AttentionFault fault>
__device__ int64_t places(const Batch& b, int64_t row) {
  const int64_t context = b.context[row], tail = b.tail_begin[row + 1] - b.tail_begin[row];
  if (fault == AttentionFault::kNoSiblingMask && tail > 0) return b.slot[row] + 1;
  return (fault == AttentionFault::kNoNanGuard ? ceil_to(context, kBlockTokens) : context) + tail;
}

__device__ int64_t offset_of(const AttentionParams& p, int64_t row, int64_t head, int32_t slot) {
  const int64_t block =
      p.batch.block_tables[p.batch.sequence[row] * p.batch.table_stride + slot / kBlockTokens];
  const int64_t line = head / (p.heads / p.kv.kv_heads) * kBlockTokens + slot % kBlockTokens;
  return block * p.kv.k_block_stride + line * head_dim_padded(p.kv.head_dim);
}

// A thread attends for one head of one row.
template <typename T, AttentionFault fault>
__global__ void attention_kernel(AttentionParams p) {
  const int64_t row = blockIdx.x, head = threadIdx.x, dim = p.kv.head_dim;
  const float* q = p.qkv + (row * (p.heads + 2 * p.kv.kv_heads) + head) * dim;
  float* y = p.y + (row * p.heads + head) * dim;
  const auto *k = static_cast<const uint16_t*>(p.kv.k), *v = static_cast<const uint16_t*>(p.kv.v);
  const auto score = [&](int32_t slot) {
    const uint16_t* key = k + offset_of(p, row, head, slot);
    float sum = 0.0f;
    for (int64_t i = 0; i < dim; ++i) sum = fmaf(T::to_float(T::from_float(q[i])), T::to_float(key[i]), sum);
    return sum * p.scale;
  };
  const int64_t count = places<fault>(p.batch, row);
  float largest = -INFINITY, total = 0.0f;
  for (int64_t j = 0; j < count; ++j) {
    const Place at = place<fault>(p.batch, row, j);
    if (at.seen) largest = fmaxf(largest, score(at.slot));
  }
  for (int64_t i = 0; i < dim; ++i) y[i] = 0.0f;
  for (int64_t j = 0; j < count; ++j) {
    const Place at = place<fault>(p.batch, row, j);
    const float w = at.seen ? expf(score(at.slot) - largest) : 0.0f;
    total += w;
    const uint16_t* value = v + offset_of(p, row, head, at.slot);
    for (int64_t i = 0; i < dim; ++i) y[i] = fmaf(w, T::to_float(value[i]), y[i]);
  }
  for (int64_t i = 0; i < dim; ++i) y[i] /= total;
}

template <AttentionFault fault>
void attention(const AttentionParams& p, Stream& stream) {
  with_element(p.kv.dtype, [&](auto element) {
    launch("planted attention", attention_kernel<decltype(element), fault>,
           dim3(static_cast<unsigned>(p.batch.rows)), dim3(static_cast<unsigned>(p.heads)), 0, stream, p);
  });
}

__global__ void last_wins_kernel(SampleParams p) {
  const float* logits = p.logits + blockIdx.x * p.vocab;
  int32_t best = -1;
  for (int64_t i = 0; i < p.vocab; ++i) {
    if (logits[i] == logits[i] && (best < 0 || logits[i] >= logits[best])) best = static_cast<int32_t>(i);
  }
  p.token[blockIdx.x] = best;
}

void last_wins(const SampleParams& p, Stream& stream) {
  launch("planted sample", last_wins_kernel, dim3(static_cast<unsigned>(p.rows)), dim3(1), 0, stream, p);
}

void sample_mask_ignored(const SampleParams& p, Stream& stream) {
  SampleParams wrong = p;
  wrong.mask = nullptr;
  sample_cuda(wrong, stream);
}

enum class HeadFault { kMaskIgnored, kMaskOfFirst, kMaskByHeadRow, kMaskedInSum };

template <HeadFault fault>
void head_top(const HeadTopParams& p, Stream& stream) {
  HeadTopParams wrong = p;
  if (fault == HeadFault::kMaskIgnored || fault == HeadFault::kMaskedInSum) wrong.mask = nullptr;
  if (fault == HeadFault::kMaskOfFirst) wrong.mask_rows = p.rows;
  if (fault == HeadFault::kMaskByHeadRow) wrong.id_map = nullptr;
  head_top_cuda(wrong, stream);
  if (fault != HeadFault::kMaskedInSum) return;
  wrong.mask = p.mask;
  wrong.log_sum_exp = static_cast<float*>(stream.workspace);
  head_top_cuda(wrong, stream);
}

__global__ void write_inert_kernel(RopeParams p) {
  auto* k = static_cast<uint16_t*>(p.kv.k) + p.batch.block_tables[0] * p.kv.k_block_stride;
  for (int64_t row = 0; row < p.batch.rows; ++row) {
    if (p.batch.slot[row] < 0) k[threadIdx.x] ^= 1;
  }
}

void inert_written(const RopeParams& p, Stream& stream) {
  rope_cuda(p, stream);
  launch("planted rope", write_inert_kernel, dim3(1), dim3(static_cast<unsigned>(p.kv.head_dim)), 0, stream,
         p);
}

__global__ void keep_padding_kernel(KeepHiddenParams p) {
  for (int64_t lane = 0; lane < p.lanes; ++lane) {
    if (p.path_length[lane] > 0) continue;
    for (int64_t i = threadIdx.x; i < p.hidden; i += blockDim.x) {
      p.to[p.to_row[lane] * p.hidden + i] = p.hidden_out[i] * 2.0f - 1.0f;
    }
  }
}

void padding_kept(const KeepHiddenParams& p, Stream& stream) {
  keep_hidden_cuda(p, stream);
  launch("planted keep_hidden", keep_padding_kernel, dim3(1), dim3(kThreads), 0, stream, p);
}

}  // namespace

bool plant(const std::string& fault, Backend& table) {
  const struct {
    const char* fault;
    Op<MatmulParams> op;
  } matmuls[] = {
      {"no-fault-matmul", matmul<MatmulFault::kNone>},
      {"fixed-split", matmul<MatmulFault::kFixedSplit>},
      {"split-by-rows", matmul<MatmulFault::kSplitByRows>},
      {"leak", matmul<MatmulFault::kLeak>},
      {"atomic-sum", matmul<MatmulFault::kAtomicSum>},
      {"overrun", matmul<MatmulFault::kOverrun>},
      {"workspace-overrun", matmul<MatmulFault::kWorkspaceOverrun>},
      {"counter-left", matmul<MatmulFault::kCounterLeft>},
  };
  for (const auto& [name, op] : matmuls) {
    if (fault == name) return table.matmul = op, true;
  }
  const struct {
    const char* fault;
    Op<AttentionParams> op;
  } attentions[] = {
      {"no-fault-attention", attention<AttentionFault::kNone>},
      {"no-sibling-mask", attention<AttentionFault::kNoSiblingMask>},
      {"no-nan-guard", attention<AttentionFault::kNoNanGuard>},
  };
  for (const auto& [name, op] : attentions) {
    if (fault == name) return table.attention = op, true;
  }
  const struct {
    const char* fault;
    Op<HeadTopParams> op;
  } heads[] = {
      {"mask-ignored", head_top<HeadFault::kMaskIgnored>},
      {"mask-of-first", head_top<HeadFault::kMaskOfFirst>},
      {"mask-by-head-row", head_top<HeadFault::kMaskByHeadRow>},
      {"masked-in-sum", head_top<HeadFault::kMaskedInSum>},
  };
  for (const auto& [name, op] : heads) {
    if (fault == name) return table.head_top = op, true;
  }
  if (fault == "last-wins") return table.sample = last_wins, true;
  if (fault == "sample-mask-ignored") return table.sample = sample_mask_ignored, true;
  if (fault == "inert-written") return table.rope = inert_written, true;
  if (fault == "padding-kept") return table.keep_hidden = padding_kept, true;
  if (fault == "no-op") return table.sample = nullptr, true;
  return false;
}

}  // namespace redrafter::testing
