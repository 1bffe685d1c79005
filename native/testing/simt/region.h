// Where a kernel may read and write, with a shadow: who touched it last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace redrafter::simt {

// Who wrote and read the bytes of a cell last: time << 16 | thread << 4 | flags, or 0.
struct Cell {
  uint64_t write, read;
};

constexpr int kPageShift = 12, kLargestCell = 4;  // 4 KiB, in cells of 1 << 4 bytes or less

// The cells are as small as the accesses to the page: they start large and are split.
struct Page {
  int shift = 0;
  std::unique_ptr<Cell[]> cells;
  // Cells of at most 1 << wanted bytes.
  void refine(int wanted);
};

struct Region {
  uintptr_t begin = 0, end = 0;
  bool shared = false;
  std::string name;  // "an allocation of 12 bytes", of which this may be a part
  size_t whole_bytes;
  std::vector<Page> pages;

  Region(uintptr_t begin_, uintptr_t end_, bool shared_, std::string name_, size_t whole = 0);
  std::string text() const;  // name, and that it is a part
  bool contains(uintptr_t address) const { return address - begin < end - begin; }
  Page& page(uintptr_t address) { return pages[(address >> kPageShift) - (begin >> kPageShift)]; }
};

// What kernels may touch of device memory, in ascending order.
std::vector<Region>& device_regions();
// The one of `regions`, in ascending order, that an address lies in, or null.
Region* find_region(std::vector<Region>& regions, uintptr_t address);
// Of `others` and the regions of device memory, the one nearest to an address; null when there is none.
const Region* nearest_region(uintptr_t address, const std::vector<const Region*>& others);
void add_region(const void* begin, size_t bytes, const std::string& name, size_t whole);
void remove_region(const void* begin, size_t bytes);

}  // namespace redrafter::simt
