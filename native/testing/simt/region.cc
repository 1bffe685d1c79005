#include "testing/simt/region.h"

#include <algorithm>

namespace redrafter::simt {
namespace {

std::vector<Region> regions;  // in ascending order, apart

std::vector<Region>::iterator first_ending_after(uintptr_t address) {
  return std::find_if(regions.begin(), regions.end(),
                      [&](const Region& region) { return region.end > address; });
}

}  // namespace

void Page::refine(int wanted) {
  constexpr int kPage = 1 << kPageShift;
  if (cells == nullptr) {
    shift = wanted;
    cells = std::make_unique<Cell[]>(static_cast<size_t>(kPage >> shift));
  }
  if (shift <= wanted) return;
  const size_t count = static_cast<size_t>(kPage >> wanted);
  auto smaller = std::make_unique<Cell[]>(count);
  for (size_t i = 0; i < count; ++i) smaller[i] = cells[i >> (shift - wanted)];
  cells = std::move(smaller);
  shift = wanted;
}

Region::Region(uintptr_t begin_, uintptr_t end_, bool shared_, std::string name_, size_t whole)
    : begin(begin_), end(end_), shared(shared_), name(std::move(name_)), whole_bytes(whole) {
  if (whole == 0) whole_bytes = end - begin;
  if (end > begin) pages.resize(((end - 1) >> kPageShift) - (begin >> kPageShift) + 1);
}

std::string Region::text() const {
  if (shared || end - begin == whole_bytes) return name;
  return "a part of " + std::to_string(end - begin) + " bytes of " + name;
}

std::vector<Region>& device_regions() { return regions; }

Region* find_region(std::vector<Region>& all, uintptr_t address) {
  auto after = std::upper_bound(all.begin(), all.end(), address,
                                [](uintptr_t at, const Region& region) { return at < region.end; });
  return after != all.end() && after->contains(address) ? &*after : nullptr;
}

const Region* nearest_region(uintptr_t address, const std::vector<const Region*>& others) {
  const auto distance = [&](const Region& region) {
    if (region.contains(address)) return uintptr_t{0};
    return address < region.begin ? region.begin - address : address - region.end + 1;
  };
  const Region* nearest = nullptr;
  const auto consider = [&](const Region& region) {
    if (region.begin == region.end) return;
    if (nearest == nullptr || distance(region) < distance(*nearest)) nearest = &region;
  };
  for (const Region* region : others) consider(*region);
  for (const Region& region : regions) consider(region);
  return nearest;
}

void add_region(const void* memory, size_t bytes, const std::string& name, size_t whole) {
  if (bytes == 0) return;
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  regions.emplace(first_ending_after(begin), begin, begin + bytes, false, name, whole);
}

void remove_region(const void* memory, size_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(memory), end = begin + bytes;
  auto at = first_ending_after(begin);
  while (at != regions.end() && at->begin < end) {
    const Region whole = std::move(*at);
    at = regions.erase(at);
    if (whole.end > end) at = regions.emplace(at, end, whole.end, false, whole.name, whole.whole_bytes);
    if (whole.begin < begin)
      at = regions.emplace(at, whole.begin, begin, false, whole.name, whole.whole_bytes) + 1;
  }
}

}  // namespace redrafter::simt
