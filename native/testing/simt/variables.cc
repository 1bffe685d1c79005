#include "testing/simt/variables.h"

#include <cxxabi.h>
#include <link.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

namespace redrafter::simt {
namespace {

struct Module {
  std::string path;
  uintptr_t base = 0;
  std::vector<std::pair<uintptr_t, uintptr_t>> segments;
};

int find_module(dl_phdr_info* info, size_t, void* result) {
  Module found{info->dlpi_name, info->dlpi_addr, {}};
  bool own = false;
  const auto here = reinterpret_cast<uintptr_t>(&find_module);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
    const uintptr_t begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    found.segments.emplace_back(begin, begin + info->dlpi_phdr[i].p_memsz);
    own = own || (here >= begin && here < found.segments.back().second);
  }
  if (own) *static_cast<Module*>(result) = found;
  return own ? 1 : 0;
}

const Module& module() {
  static const Module module = [] {
    Module found;
    dl_iterate_phdr(find_module, &found);
    if (found.path.empty()) found.path = "/proc/self/exe";
    return found;
  }();
  return module;
}

// The parts of an ELF file that are needed here.
class File {
 public:
  explicit File(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
    const auto header = at<ElfW(Ehdr)>(0, 0);
    for (size_t i = 0; i < header.e_shnum; ++i) sections.push_back(at<ElfW(Shdr)>(header.e_shoff, i));
    if (header.e_shstrndx < sections.size()) names_ = sections[header.e_shstrndx];
  }
  template <typename T>
  T at(size_t offset, size_t index) const {
    T value{};
    const size_t begin = offset + index * sizeof(T);
    if (begin + sizeof(T) <= bytes_.size()) std::memcpy(&value, bytes_.data() + begin, sizeof(T));
    return value;
  }
  std::string text(const ElfW(Shdr) & strings, size_t offset) const {
    const size_t begin = strings.sh_offset + offset;
    return begin < bytes_.size() ? std::string(bytes_.data() + begin) : "";
  }
  std::string name(const ElfW(Shdr) & section) const { return text(names_, section.sh_name); }

  std::vector<ElfW(Shdr)> sections;

 private:
  std::vector<char> bytes_;
  ElfW(Shdr) names_{};
};

std::string readable(const std::string& mangled) {
  int status = 0;
  char* text = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  std::string name = text == nullptr ? mangled : text;
  std::free(text);
  for (const std::string noise : {"redrafter::", "(anonymous namespace)::"}) {
    for (size_t at = name.find(noise); at != std::string::npos; at = name.find(noise))
      name.erase(at, noise.size());
  }
  return name;
}

std::vector<SharedVariable> read_variables() {
  const File file(module().path);
  std::vector<SharedVariable> sections, variables;
  const auto add = [](std::vector<SharedVariable>& list, uintptr_t offset, size_t bytes, std::string name) {
    list.push_back({module().base + offset, module().base + offset + bytes, std::move(name)});
  };
  std::vector<bool> holds;  // shared variables, by section
  for (const auto& section : file.sections) {
    const std::string name = file.name(section);
    holds.push_back(name == "simt_shared" || name.rfind(".noinit", 0) == 0);
    if (holds.back())
      add(sections, section.sh_addr, section.sh_size, "the static shared memory of all kernels");
  }
  for (const auto& table : file.sections) {
    if (table.sh_type != SHT_SYMTAB || table.sh_link >= file.sections.size()) continue;
    for (size_t i = 0; i < table.sh_size / sizeof(ElfW(Sym)); ++i) {
      const auto symbol = file.at<ElfW(Sym)>(table.sh_offset, i);
      if (symbol.st_shndx >= holds.size() || !holds[symbol.st_shndx] || symbol.st_size == 0) continue;
      add(variables, symbol.st_value, symbol.st_size,
          "shared " + readable(file.text(file.sections[table.sh_link], symbol.st_name)));
    }
  }
  std::vector<SharedVariable>& all = variables.empty() ? sections : variables;
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.begin < b.begin; });
  return all;
}

}  // namespace

const std::vector<SharedVariable>& shared_variables() {
  static const std::vector<SharedVariable> variables = read_variables();
  return variables;
}

uintptr_t module_base() { return module().base; }

bool in_module(uintptr_t address, size_t bytes) {
  return std::any_of(module().segments.begin(), module().segments.end(), [&](const auto& segment) {
    return address >= segment.first && address + bytes <= segment.second;
  });
}

}  // namespace redrafter::simt
