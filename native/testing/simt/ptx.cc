// The matrix and copy instructions, from the layouts of the PTX manual: lane = 4 * group + member.
#include "testing/simt/ptx.h"

#include <algorithm>

#include "testing/simt/check.h"
#include "testing/simt/machine.h"

#define CALLER __builtin_return_address(0)

namespace redrafter::simt {
namespace {

constexpr int kM = 16, kN = 8, kK = 16;

struct MmaArguments {
  Floats4 d;
  Words4 a;
  uint32_t b[2];
};

// As f16_to_f32, without branches.
float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, rest = half & 0x7fffu;
  const uint32_t scaled = f32_to_bits(bits_to_f32(rest << 13) * 0x1p112f);
  const uint32_t special = rest << 13 | 0x7f800000u;
  return bits_to_f32(sign | (rest >= 0x7c00u ? special : scaled));
}

template <DType dtype>
float element(uint32_t word, int half) {
  const uint16_t bits = static_cast<uint16_t>(word >> (16 * half));
  return dtype == DType::kBF16 ? bf16_to_f32(bits) : half_to_float(bits);
}

// Products of 16-bit elements are exact in fp64, and so are sums of them but for extreme ranges: each result
// is rounded once, to fp32.
template <DType dtype>
void run_mma(void* const (&arguments)[kWarpLanes]) {
  double a[kM][kK], b[kK][kN], d[kM][kN];
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const auto& own = *static_cast<const MmaArguments*>(arguments[lane]);
    const int group = lane / 4, member = lane % 4;
    for (int half = 0; half < 2; ++half) {
      const int k = 2 * member + half;
      for (int part = 0; part < 4; ++part)
        a[group + part % 2 * 8][k + part / 2 * 8] = element<dtype>(own.a.v[part], half);
      for (int part = 0; part < 2; ++part) b[k + part * 8][group] = element<dtype>(own.b[part], half);
      d[group][k] = own.d.v[half];
      d[group + 8][k] = own.d.v[half + 2];
    }
  }
  for (int m = 0; m < kM; ++m) {
    for (int k = 0; k < kK; ++k) {
      for (int n = 0; n < kN; ++n) d[m][n] += a[m][k] * b[k][n];
    }
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    auto& own = *static_cast<MmaArguments*>(arguments[lane]);
    const int group = lane / 4, member = lane % 4;
    for (int i = 0; i < 4; ++i) own.d.v[i] = static_cast<float>(d[group + i / 2 * 8][2 * member + i % 2]);
  }
}

constexpr Collective kMmaBf16 = {"mma_16x8x16<Bf16>", run_mma<DType::kBF16>},
                     kMmaFp16 = {"mma_16x8x16<Fp16>", run_mma<DType::kF16>};

struct LdmatrixArguments {
  const void* row;
  Words4 words;
};

template <int matrices, bool transposed>
void run_ldmatrix(void* const (&arguments)[kWarpLanes]) {
  for (int matrix = 0; matrix < matrices; ++matrix) {
    uint16_t elements[8][8];
    for (int row = 0; row < 8; ++row)
      std::memcpy(elements[row], static_cast<LdmatrixArguments*>(arguments[matrix * 8 + row])->row, 16);
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      const int group = lane / 4, first = lane % 4 * 2;
      const uint32_t low = transposed ? elements[first][group] : elements[group][first];
      const uint32_t high = transposed ? elements[first + 1][group] : elements[group][first + 1];
      static_cast<LdmatrixArguments*>(arguments[lane])->words.v[matrix] = low | high << 16;
    }
  }
}

constexpr Collective kLdmatrixX4 = {"ldmatrix_x4", run_ldmatrix<4, false>},
                     kLdmatrixX4Transposed = {"ldmatrix_x4_transposed", run_ldmatrix<4, true>},
                     kLdmatrixX2 = {"ldmatrix_x2", run_ldmatrix<2, false>};

void check_aligned(const void* address, const char* what) {
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0)
    fail(std::string("misaligned address ") + hex(address) + " in " + what + ", which needs 16 bytes");
}

void check_shared(const void* address, const char* what) {
  check_aligned(address, what);
  if (!in_shared(address, 16))
    fail(std::string("address ") + hex(address) + " in " + what +
         " is not in the shared memory of the block");
}

void do_copy(AsyncCopy& copy) {
  copy.done = true;
  if (copy.from == nullptr) {
    std::memset(copy.to, 0, 16);
  } else {
    std::memcpy(copy.to, copy.from, 16);
  }
}

}  // namespace

Floats4 mma_16x8x16(DType dtype, Floats4 d, Words4 a, uint32_t b0, uint32_t b1) {
  MmaArguments arguments{d, a, {b0, b1}};
  join_warp(dtype == DType::kBF16 ? kMmaBf16 : kMmaFp16, 0xffffffffu, &arguments);
  return arguments.d;
}

Words4 ldmatrix(int matrices, bool transposed, const void* row) {
  const Collective& collective = matrices == 2 ? kLdmatrixX2
                                 : transposed  ? kLdmatrixX4Transposed
                                               : kLdmatrixX4;
  check_shared(row, collective.name);
  check_access(row, 16, Access::kRead, collective.name, CALLER);
  LdmatrixArguments arguments{row, {}};
  join_warp(collective, 0xffffffffu, &arguments);
  return arguments.words;
}

void copy_async(void* shared, const void* global, bool valid) {
  check_shared(shared, "copy_async_16");
  check_aligned(global, "copy_async_16");
  if (valid) check_access(global, 16, Access::kRead, "copy_async_16", CALLER);
  check_access(shared, 16, Access::kCopyStart, "copy_async_16", CALLER);
  AsyncCopy copy{shared, valid ? global : nullptr, -1, false};
  if ((machine.random.next() & 3) == 0) do_copy(copy);
  machine.current->copies.push_back(copy);
}

void copy_async_commit() {
  Thread& thread = *machine.current;
  for (AsyncCopy& copy : thread.copies) copy.group = copy.group < 0 ? thread.groups : copy.group;
  ++thread.groups;
}

void copy_async_wait(int pending) { finish_copies(*machine.current, machine.current->groups - 1 - pending); }

void progress_copies(Thread& thread) {
  for (AsyncCopy& copy : thread.copies) {
    if (!copy.done && (machine.random.next() & 7) == 0) do_copy(copy);
  }
}

void finish_copies(Thread& thread, int last_group) {
  std::erase_if(thread.copies, [&](AsyncCopy& copy) {
    if (copy.group >= 0 ? copy.group > last_group : last_group < thread.groups) return false;
    if (!copy.done) do_copy(copy);
    check_access(copy.to, 16, Access::kCopyEnd, nullptr);
    return true;
  });
}

void check_aligned_16(const void* address, const char* what) { check_aligned(address, what); }

}  // namespace redrafter::simt
