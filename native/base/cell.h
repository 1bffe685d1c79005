// The recurrent cells a drafter may have; the formulas are in ops/drafter.h.
#pragma once

#include <cstdint>

namespace redrafter {

enum class Cell : uint8_t { kSum, kElman, kGru };

inline const char* cell_name(Cell cell) {
  return cell == Cell::kSum ? "sum" : cell == Cell::kElman ? "elman" : "gru";
}

}  // namespace redrafter
