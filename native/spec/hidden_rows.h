// The target's hidden states that requests draft from, one row for each request that decodes.
#pragma once

#include <vector>

#include "ops/ops.h"

namespace redrafter {

class HiddenRows {
 public:
  HiddenRows(const Backend& backend, int64_t rows, int64_t hidden)
      : memory_(backend, static_cast<size_t>(bytes(rows, hidden))) {
    for (int64_t row = rows - 1; row >= 0; --row) free_.push_back(static_cast<int32_t>(row));
  }
  static int64_t bytes(int64_t rows, int64_t hidden) {
    return rows * hidden * static_cast<int64_t>(sizeof(float));
  }

  // A row taken until its owner goes, which must be before the rows do.
  class Taken {
   public:
    Taken() = default;
    explicit Taken(HiddenRows& rows) : rows_(&rows), row_(rows.free_.back()) { rows.free_.pop_back(); }
    Taken(Taken&& other) noexcept { swap(other); }
    Taken& operator=(Taken&& other) noexcept {
      swap(other);
      return *this;
    }
    ~Taken() {
      if (rows_ != nullptr) rows_->free_.push_back(row_);
    }
    int32_t row() const { return row_; }

   private:
    void swap(Taken& other) noexcept {
      std::swap(rows_, other.rows_);
      std::swap(row_, other.row_);
    }
    HiddenRows* rows_ = nullptr;
    int32_t row_ = -1;
  };

  int64_t free_rows() const { return static_cast<int64_t>(free_.size()); }
  float* data() const { return memory_.as<float>(); }  // [rows, hidden]

 private:
  DeviceBuffer memory_;
  std::vector<int32_t> free_;
};

}  // namespace redrafter
