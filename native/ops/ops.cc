#include "ops/ops.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "base/check.h"
#include "base/cpu.h"
#include "ops/companion.h"

namespace redrafter {
namespace {

// Asks for large pages: products that stream weights look up fewer of them.
void ask_large_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = 2 << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + kPage - 1) / kPage * kPage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) / kPage * kPage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

void* host_allocate(size_t bytes) {
  void* memory = ::operator new(bytes, std::align_val_t{64}, std::nothrow);
  REDRAFTER_REQUIRE(memory != nullptr, "ERR_OOM", "cannot allocate ", bytes, " bytes of memory");
  ask_large_pages(memory, bytes);
  return memory;
}
void host_release(void* memory) { ::operator delete(memory, std::align_val_t{64}); }
void host_copy(void* to, const void* from, size_t bytes, Stream&) {
  if (bytes != 0) std::memcpy(to, from, bytes);
}

int64_t panel_bytes(int64_t rows, int64_t cols, DType dtype) {
  return ceil_to(rows, kPanelRows) * cols * static_cast<int64_t>(dtype_bytes(dtype));
}
KvLayer float_kv(int64_t kv_heads, int64_t head_dim, DType) {
  return {nullptr,
          nullptr,
          DType::kF32,
          kv_heads * head_dim * kBlockTokens,
          kv_heads * kBlockTokens * head_dim_padded(head_dim),
          kv_heads,
          head_dim};
}
void open_nothing(Stream&, StreamUse) {}
void nothing(Stream&) {}

// The column of plain loops; faster levels replace what they have.
constexpr Backend oracle() {
  Backend b{};
  b.name = "cpu", b.level = "oracle";
  b.matmul_pack = matmul_pack_cpu, b.embed = embed_cpu, b.norm = norm_cpu, b.matmul = matmul_cpu;
  b.rope = rope_cpu, b.attention = attention_cpu, b.act = act_cpu;
  b.adjust = adjust_cpu, b.adjust_undo = adjust_undo_cpu;
  b.sample = sample_cpu, b.logprob = logprob_cpu;
  b.cell = cell_cpu, b.mix = mix_cpu, b.residual = residual_cpu, b.head_top = head_top_cpu;
  b.beam_start = beam_start_cpu, b.beam = beam_cpu;
  b.tree_pack = tree_pack_cpu, b.tree_rows = tree_rows_cpu, b.tree_accept = tree_accept_cpu;
  b.keep_hidden = keep_hidden_cpu;
  b.kv_compact = kv_compact_cpu, b.kv_copy_block = kv_copy_block_cpu;
  b.kv_export = kv_export_cpu, b.kv_import = kv_import_cpu;
  b.matrix_bytes = panel_bytes, b.kv_layout = float_kv, b.takes = dtype_is_float;
  b.host_memory = true;
  b.allocate = host_allocate, b.release = host_release;
  b.upload = host_copy, b.download = host_copy, b.copy = host_copy;
  b.allocate_host = host_allocate, b.release_host = host_release;
  b.upload_later = host_copy, b.download_later = host_copy;
  b.open_stream = open_nothing, b.close_stream = nothing, b.wait = nothing;
  return b;
}
constexpr Backend kOracle = oracle();

#define REDRAFTER_LEVEL(isa, name)                                                                \
  [] {                                                                                            \
    Backend b = kOracle;                                                                          \
    b.level = name;                                                                               \
    b.matmul = isa::matmul, b.attention = isa::attention, b.act = isa::act;                       \
    b.cell = isa::cell, b.mix = isa::mix, b.residual = isa::residual, b.head_top = isa::head_top; \
    return b;                                                                                     \
  }()

struct Level {
  const Backend& backend;
  const char* missing;  // null when this processor can run it
};

// REDRAFTER_WITH_* say which levels CMake has compiled for this architecture.
std::vector<Level> cpu_levels() {
  std::vector<Level> levels;
#if defined(REDRAFTER_WITH_AVX512)
  static const Backend avx512 = REDRAFTER_LEVEL(isa_avx512, "avx512");
  static const bool has_avx512 = cpu_has({"avx512f", "avx512bw", "avx512vl", "avx512dq"});
  levels.push_back({avx512, has_avx512 ? nullptr : "this processor has no AVX-512 (F, BW, VL, DQ)"});
#endif
#if defined(REDRAFTER_WITH_AVX2)
  static const Backend avx2 = REDRAFTER_LEVEL(isa_avx2, "avx2");
  static const bool has_avx2 = cpu_has({"avx2", "fma", "f16c"});
  levels.push_back({avx2, has_avx2 ? nullptr : "this processor has no AVX2 with FMA and F16C"});
#endif
#if defined(REDRAFTER_WITH_NEON)
  static const Backend neon = REDRAFTER_LEVEL(isa_neon, "neon");
  levels.push_back({neon, nullptr});
#endif
  static const Backend base = REDRAFTER_LEVEL(isa_base, "base");
  levels.push_back({base, nullptr});
  levels.push_back({kOracle, nullptr});
  return levels;
}

// N of "cuda:N", 0 of "cuda"; -1 of anything else.
int32_t cuda_device(const std::string& device) {
  if (device == "cuda") return 0;
  int32_t number = -1;
  const char* end = device.data() + device.size();
  if (device.rfind("cuda:", 0) != 0) return -1;
  const auto [stop, error] = std::from_chars(device.data() + 5, end, number);
  return error == std::errc() && stop == end ? number : -1;
}

FindMore more_backends = nullptr;

}  // namespace

void find_more_backends(FindMore find) { more_backends = find; }

const Backend& find_backend(const std::string& device, Reason* not_cuda) {
  if (more_backends != nullptr) {
    if (const Backend* found = more_backends(device); found != nullptr) return *found;
  }
  if (const int32_t number = cuda_device(device); number >= 0) {
    const Reason reason = cuda_status(number);
    REDRAFTER_REQUIRE(reason.code == nullptr, "ERR_BACKEND", "device \"", device,
                      "\" is not available: ", reason.message);
    return cuda_backend(number);
  }
  if (device == "auto") {
    Reason reason = cuda_status(0);
    if (reason.code == nullptr) return cuda_backend(0);
    if (not_cuda != nullptr) *not_cuda = std::move(reason);
  }
  for (const Level& level : cpu_levels()) {
    const bool any = device == "auto" || device == "cpu";
    if (any && level.missing == nullptr) return level.backend;
    if (device != std::string("cpu:") + level.backend.level) continue;
    REDRAFTER_REQUIRE(level.missing == nullptr, "ERR_BACKEND", "device \"", device,
                      "\" is not available: ", level.missing);
    return level.backend;
  }
  fail("ERR_INVALID_ARGUMENT", "unknown device \"", device, "\"; expected auto, cpu, cuda or cuda:N");
}

Backend measuring(Backend backend) {
  backend.allocate = [](size_t) -> void* { return nullptr; };
  backend.release = [](void*) {};
  backend.open_stream = open_nothing;
  backend.close_stream = backend.wait = nothing;
  backend.allocate_host = backend.allocate;
  backend.release_host = backend.release;
  backend.upload = backend.download = backend.copy = backend.upload_later =
      backend.download_later = [](void*, const void*, size_t, Stream&) {};
  return backend;
}

std::vector<BackendStatus> list_backends() {
  std::vector<BackendStatus> all;
  const Backend& automatic = find_backend("auto");
  for (const auto& [backend, missing] : cpu_levels()) {
    if (&backend == &kOracle) continue;
    const Reason reason = missing == nullptr ? Reason{} : Reason{"NO_CPU_FEATURE", missing};
    all.push_back(
        {std::string("cpu:") + backend.level, backend.name, backend.level, reason, &backend == &automatic});
  }
  const Reason cuda = cuda_status(0);
  all.push_back({"cuda", "cuda", "", cuda, cuda.code == nullptr});
  return all;
}

}  // namespace redrafter
