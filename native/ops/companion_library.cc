#include "ops/companion_library.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <system_error>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace redrafter {
namespace {

constexpr int32_t kOldestMajor = 8;  // compute capability 8.0: cp.async, bf16 in matrix instructions

using Entry = const CudaEntry* (*)();
constexpr const char* kEntryName = "redrafter_cuda_entry";

#if defined(_WIN32)
std::filesystem::path own_path() {
  HMODULE module = nullptr;
  const DWORD flags = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
  if (!GetModuleHandleExW(flags, reinterpret_cast<LPCWSTR>(&own_path), &module)) return {};
  std::vector<wchar_t> path(1 << 15);
  const DWORD length = GetModuleFileNameW(module, path.data(), static_cast<DWORD>(path.size()));
  return std::filesystem::path(path.data(), path.data() + length);
}

// `error` is set when it cannot be opened.
Entry open_entry(const std::filesystem::path& path, std::string* error) {
  const HMODULE library = LoadLibraryExW(path.c_str(), nullptr, LOAD_WITH_ALTERED_SEARCH_PATH);
  if (library == nullptr) {
    *error = std::system_category().message(static_cast<int>(GetLastError()));
    return nullptr;
  }
  return reinterpret_cast<Entry>(reinterpret_cast<void*>(GetProcAddress(library, kEntryName)));
}
#else
std::filesystem::path own_path() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_path), &info) == 0 || info.dli_fname == nullptr) return {};
  const std::filesystem::path path = info.dli_fname;
  if (path.has_parent_path()) return path;
  std::error_code unknown;  // a program, found in PATH
  return std::filesystem::read_symlink("/proc/self/exe", unknown);
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

// `error` is set when it cannot be opened.
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

Reason count_devices(const CudaEntry& entry, int32_t* count) {
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

CudaDeviceStatus describe_device(const CudaEntry& entry, int32_t number) {
  CudaDeviceStatus status;
  CudaDevice device{};
  if (!entry.describe(number, &device)) {
    status.reason = {"NO_DEVICE", "CUDA device " + std::to_string(number) + " does not answer"};
    return status;
  }
  status.name = device.name;
  status.level = "sm_" + std::to_string(device.major) + std::to_string(device.minor);
  if (device.major < kOldestMajor) {
    status.reason = {"UNSUPPORTED_DEVICE", status.name + " has compute capability " +
                                               std::to_string(device.major) + "." +
                                               std::to_string(device.minor) + ", 8.0 or newer is needed"};
  }
  return status;
}

}  // namespace

std::filesystem::path beside(const char* name) {
  const std::filesystem::path own = own_path();
  return own.has_parent_path() ? own.parent_path() / name : std::filesystem::path();
}

Reason find_cuda_library() {
  std::error_code unknown;
  const std::filesystem::path path = beside(kCudaLibraryName);
  if (!path.empty() && std::filesystem::exists(path, unknown)) return {};
  return {"NOT_BUILT", std::string("there is no CUDA library (") + kCudaLibraryName + ") beside the addon"};
}

Reason open_cuda_library(const CudaEntry** entry) {
  std::string error;
  const Entry function = open_entry(beside(kCudaLibraryName), &error);
  if (!error.empty()) return {"COMPANION_FAILED", "the CUDA library cannot be opened: " + error};
  const CudaEntry* found = function == nullptr ? nullptr : function();
  if (found == nullptr || found->stamp != cuda_stamp()) {
    return {"COMPANION_MISMATCH", "the CUDA library beside the addon belongs to another build of redrafter"};
  }
  *entry = found;
  return {};
}

Reason describe_cuda_devices(const CudaEntry& entry, std::vector<CudaDeviceStatus>* devices) {
  int32_t count = 0;
  const Reason none = count_devices(entry, &count);
  for (int32_t i = 0; i < std::min(count, kMaxCudaDevices); ++i)
    devices->push_back(describe_device(entry, i));
  return none;
}

}  // namespace redrafter
