#include "spec/round_batch.h"

#include <algorithm>

#include "base/check.h"

namespace redrafter {
namespace {

int32_t narrow(int64_t value) { return static_cast<int32_t>(value); }

}  // namespace

RoundBatch::Arrays RoundBatch::carve(Arena& arena, const Limits& limits) {
  const int64_t rows = limits.rows;
  Arrays a{};
  for (int32_t** list :
       {&a.token, &a.position, &a.slot, &a.sequence, &a.context, &a.parent, &a.output, &a.choose_position}) {
    *list = arena.take<int32_t>(rows);
  }
  a.tail_begin = arena.take<int32_t>(rows + 1);
  a.tail_slots = arena.take<int32_t>(rows * (limits.depth + 1));
  a.spec = arena.take<SampleSpec>(rows);
  a.tables = arena.take<int32_t>(rows * limits.table_stride);
  return a;
}

int64_t RoundBatch::bytes(const Limits& limits) {
  Arena measure;
  carve(measure, limits);
  return static_cast<int64_t>(measure.used());
}

RoundBatch::RoundBatch(const Limits& limits, const Backend& backend)
    : limits_(limits),
      backend_(backend),
      host_memory_(static_cast<size_t>(bytes(limits)) / sizeof(uint64_t)),
      device_memory_(backend, static_cast<size_t>(bytes(limits))) {
  Arena host(host_memory_.data(), device_memory_.bytes());
  host_ = carve(host, limits);
  Arena device(device_memory_.as<void>(), device_memory_.bytes());
  device_ = carve(device, limits);
}

void RoundBatch::clear() {
  rows_ = outputs_ = sequences_ = tails_ = max_positions_ = 0;
  host_.tail_begin[0] = 0;
}

void RoundBatch::add_sequence(const std::vector<int32_t>& blocks) {
  REDRAFTER_CHECK(static_cast<int64_t>(blocks.size()) <= limits_.table_stride && sequences_ < limits_.rows);
  int32_t* table = host_.tables + sequences_++ * limits_.table_stride;
  std::fill(std::copy(blocks.begin(), blocks.end(), table), table + limits_.table_stride, 0);
}

void RoundBatch::add_row(int32_t token, int64_t position, int64_t slot, int64_t context, int32_t parent) {
  REDRAFTER_CHECK(rows_ < limits_.rows);
  host_.token[rows_] = token;
  host_.position[rows_] = narrow(position);
  max_positions_ = std::max(max_positions_, position + 1);
  host_.slot[rows_] = narrow(slot);
  host_.sequence[rows_] = narrow(sequences_ - 1);
  host_.context[rows_] = narrow(context);
  host_.parent[rows_] = parent;
  host_.tail_begin[++rows_] = narrow(tails_);
}

void RoundBatch::add_tail(int64_t slot) {
  REDRAFTER_CHECK(tails_ < limits_.rows * (limits_.depth + 1));
  host_.tail_slots[tails_++] = narrow(slot);
  host_.tail_begin[rows_] = narrow(tails_);
}

void RoundBatch::add_output(const SampleSpec& spec) {
  host_.output[outputs_] = narrow(rows_ - 1);
  host_.choose_position[outputs_] = host_.position[rows_ - 1] + 1;
  host_.spec[outputs_++] = spec;
}

void RoundBatch::upload(Stream& stream) {
  const auto* begin = reinterpret_cast<const uint8_t*>(host_memory_.data());
  const auto* end = reinterpret_cast<const uint8_t*>(host_.tables + sequences_ * limits_.table_stride);
  backend_.upload(device_memory_.as<void>(), begin, static_cast<size_t>(end - begin), stream);
}

Batch RoundBatch::batch() const {
  Batch b;
  b.rows = rows_;
  b.token = device_.token;
  b.position = device_.position;
  b.slot = device_.slot;
  b.sequence = device_.sequence;
  b.context = device_.context;
  b.tail_begin = device_.tail_begin;
  b.tail_slots = device_.tail_slots;
  b.block_tables = device_.tables;
  b.table_stride = limits_.table_stride;
  b.sequences = sequences_;
  b.max_positions = max_positions_;
  return b;
}

}  // namespace redrafter
