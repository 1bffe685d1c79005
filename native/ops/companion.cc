#include "ops/companion.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "base/check.h"
#include "ops/cuda_entry.h"
#include "ops/throwing.h"

namespace redrafter {
namespace {

// As many devices as there are backends for.
constexpr int32_t kMaxDevices = 16;
constexpr int32_t kOldestMajor = 8;  // compute capability 8.0: cp.async, bf16 in matrix instructions

using Entry = const CudaEntry* (*)();
constexpr const char* kEntryName = "redrafter_cuda_entry";

#if defined(_WIN32)
constexpr const char* kFileName = "redrafter_cuda.dll";

std::filesystem::path own_path() {
  HMODULE module = nullptr;
  const DWORD flags = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
  if (!GetModuleHandleExW(flags, reinterpret_cast<LPCWSTR>(&own_path), &module)) return {};
  std::vector<wchar_t> path(1 << 15);
  const DWORD length = GetModuleFileNameW(module, path.data(), static_cast<DWORD>(path.size()));
  return std::filesystem::path(path.data(), path.data() + length);
}

// Never closed: what it has handed out lives on. `error` is set when it cannot be opened.
Entry open_entry(const std::filesystem::path& path, std::string* error) {
  const HMODULE library = LoadLibraryExW(path.c_str(), nullptr, LOAD_WITH_ALTERED_SEARCH_PATH);
  if (library == nullptr) {
    *error = std::system_category().message(static_cast<int>(GetLastError()));
    return nullptr;
  }
  return reinterpret_cast<Entry>(reinterpret_cast<void*>(GetProcAddress(library, kEntryName)));
}
#else
constexpr const char* kFileName = "redrafter_cuda.so";

std::filesystem::path own_path() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_path), &info) == 0 || info.dli_fname == nullptr) return {};
  return info.dli_fname;
}

// Whether an ELF file lacks its end, as after a download that stopped. The loader of glibc maps such a file
// and dies of a bus error. What comes last in these files is the table of sections.
bool ends_early(const std::filesystem::path& path) {
  unsigned char header[64] = {};
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(header), sizeof header);
  if (!file || std::memcmp(header, "\177ELF\2\1", 6) != 0) return false;  // 64 bits, little-endian
  uint64_t begin = 0;
  uint16_t entry_bytes = 0, entries = 0;
  std::memcpy(&begin, header + 40, sizeof begin);
  std::memcpy(&entry_bytes, header + 58, sizeof entry_bytes);
  std::memcpy(&entries, header + 60, sizeof entries);
  std::error_code error;
  const uint64_t bytes = std::filesystem::file_size(path, error);
  return error || bytes < begin || bytes - begin < uint64_t{entry_bytes} * entries;
}

// Never closed: what it has handed out lives on. `error` is set when it cannot be opened.
Entry open_entry(const std::filesystem::path& path, std::string* error) {
  if (ends_early(path)) {
    *error = path.string() + ": the file is cut short";
    return nullptr;
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* said = dlerror();
    *error = said == nullptr ? "unknown error" : said;
    return nullptr;
  }
  return reinterpret_cast<Entry>(dlsym(library, kEntryName));
}
#endif

std::string version_text(int32_t version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

struct Companion {
  const CudaEntry* entry = nullptr;
  int32_t count = 0;
  std::array<CudaStatus, kMaxDevices> devices;
  std::array<std::string, kMaxDevices> levels;
  CudaStatus missing;  // with a code when no device can be used
};

CudaStatus find_entry(const CudaEntry** entry) {
  const std::filesystem::path own = own_path();
  const std::filesystem::path path = own.parent_path() / kFileName;
  std::error_code unknown;
  if (!own.has_parent_path() || !std::filesystem::exists(path, unknown)) {
    return {"NOT_BUILT", std::string("there is no CUDA library (") + kFileName + ") beside the addon"};
  }
  std::string error;
  const Entry function = open_entry(path, &error);
  if (!error.empty()) return {"COMPANION_FAILED", "the CUDA library cannot be opened: " + error};
  const CudaEntry* found = function == nullptr ? nullptr : function();
  if (found == nullptr || found->stamp != cuda_stamp()) {
    return {"COMPANION_MISMATCH", "the CUDA library beside the addon belongs to another build of redrafter"};
  }
  *entry = found;
  return {};
}

CudaStatus count_devices(const CudaEntry& entry, int32_t* count) {
  const char* error = nullptr;
  *count = entry.count(&error);
  if (*count > 0) return {};
  int32_t driver = 0, runtime = 0;
  entry.versions(&driver, &runtime);
  if (driver == 0) return {"NO_DRIVER", "there is no NVIDIA driver"};
  if (driver / 1000 < runtime / 1000) {  // within a major version CUDA promises that they go together
    return {"DRIVER_TOO_OLD", "the NVIDIA driver knows CUDA " + version_text(driver) +
                                  ", this build needs one that knows CUDA " + std::to_string(runtime / 1000) +
                                  ".0"};
  }
  return {"NO_DEVICE", std::string("there is no CUDA device") + (error == nullptr ? "" : ": ") +
                           (error == nullptr ? "" : error)};
}

Companion open_companion() {
  Companion found;
  found.missing = find_entry(&found.entry);
  if (found.missing.code == nullptr) found.missing = count_devices(*found.entry, &found.count);
  for (int32_t i = 0; i < std::min(found.count, kMaxDevices); ++i) {
    CudaStatus& status = found.devices[static_cast<size_t>(i)];
    CudaDevice device{};
    if (!found.entry->describe(i, &device)) {
      status = {"NO_DEVICE", "CUDA device " + std::to_string(i) + " does not answer"};
      continue;
    }
    const std::string number = std::to_string(device.major) + "." + std::to_string(device.minor);
    found.levels[static_cast<size_t>(i)] =
        "sm_" + std::to_string(device.major) + std::to_string(device.minor);
    if (device.major < kOldestMajor) {
      status = {"UNSUPPORTED_DEVICE",
                std::string(device.name) + " has compute capability " + number + ", 8.0 or newer is needed"};
    } else {
      status.message = device.name;
    }
  }
  return found;
}

const Companion& companion() {
  static const Companion opened = open_companion();
  return opened;
}

template <int32_t device>
struct CompanionDevice {
  static const Backend& table() { return companion().entry->table; }
  static void enter() { companion().entry->select(device); }
  static std::string memory() {
    uint64_t free = 0, total = 0;
    if (!companion().entry->memory(&free, &total)) return {};
    return std::to_string(free >> 20) + " of " + std::to_string(total >> 20) + " MiB are free";
  }
};

template <int32_t... devices>
std::array<Backend, sizeof...(devices)> make_backends(std::integer_sequence<int32_t, devices...>) {
  return {throwing_backend<CompanionDevice<devices>>(companion().levels[devices].c_str())...};
}

}  // namespace

CudaStatus cuda_status(int32_t device) {
  const Companion& all = companion();
  if (all.missing.code != nullptr) return all.missing;
  const int32_t count = std::min(all.count, kMaxDevices);
  if (device >= 0 && device < count) return all.devices[static_cast<size_t>(device)];
  std::ostringstream text;
  text << "there is no CUDA device " << device << "; the last one is " << count - 1;
  return {"NO_DEVICE", text.str()};
}

const Backend& cuda_backend(int32_t device) {
  const CudaStatus status = cuda_status(device);
  REDRAFTER_REQUIRE(status.code == nullptr, "ERR_BACKEND", "CUDA device ", device,
                    " is not available: ", status.message);
  static const std::array<Backend, kMaxDevices> backends =
      make_backends(std::make_integer_sequence<int32_t, kMaxDevices>());
  return backends[static_cast<size_t>(device)];
}

}  // namespace redrafter
