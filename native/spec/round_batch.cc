#include "spec/round_batch.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace redrafter {
namespace {

int32_t narrow(int64_t value) { return static_cast<int32_t>(value); }

}  // namespace

RoundBatch::Arrays RoundBatch::carve(Arena& arena, const Limits& limits) {
  const int64_t rows = limits.rows;
  Arrays a{};
  for (int32_t** list : {&a.root, &a.hidden_row, &a.committed}) *list = arena.take<int32_t>(rows);
  a.begin = arena.take<int32_t>(rows + 1);
  for (int32_t** list : {&a.token, &a.position, &a.slot, &a.sequence, &a.context, &a.tail_begin, &a.output,
                         &a.choose_position, &a.parent}) {
    *list = arena.take<int32_t>(rows);
  }
  a.tail_slots = arena.take<int32_t>(rows * limits.depths);
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
      host_memory_(backend, static_cast<size_t>(bytes(limits))),
      device_memory_(backend, static_cast<size_t>(bytes(limits))) {
  std::memset(host_memory_.data(), 0, device_memory_.bytes());
  Arena host(host_memory_.data(), device_memory_.bytes());
  host_ = carve(host, limits);
  Arena device(device_memory_.as<void>(), device_memory_.bytes());
  device_ = carve(device, limits);
}

void RoundBatch::clear() {
  rows_ = outputs_ = lanes_ = lane_ = max_positions_ = 0;
  host_.begin[0] = 0;
}

void RoundBatch::add_lane(int32_t root, int32_t hidden_row, int64_t committed,
                          const std::vector<int32_t>& blocks) {
  REDRAFTER_CHECK(lanes_ < limits_.rows && static_cast<int64_t>(blocks.size()) <= limits_.table_stride);
  host_.root[lanes_] = root;
  host_.hidden_row[lanes_] = hidden_row;
  host_.committed[lanes_] = narrow(committed);
  std::copy(blocks.begin(), blocks.end(), host_.tables + lanes_ * limits_.table_stride);
  ++lanes_;
}

void RoundBatch::add_padding_lane() {
  REDRAFTER_CHECK(lanes_ > 0);
  add_lane(host_.root[lanes_ - 1], host_.hidden_row[lanes_ - 1], 0, {});
}

int64_t RoundBatch::add_row(int32_t token, int64_t position, int64_t context) {
  REDRAFTER_CHECK(rows_ < limits_.rows);
  const int64_t row = rows_++;
  host_.token[row] = token;
  host_.position[row] = host_.slot[row] = narrow(position);
  host_.sequence[row] = narrow(lane_);
  host_.context[row] = narrow(context);
  max_positions_ = std::max(max_positions_, position + 1);
  host_.tail_begin[row] = narrow(row * limits_.depths);
  return row;
}

void RoundBatch::add_tree(int64_t nodes, const SampleSpec& spec) {
  REDRAFTER_CHECK(rows_ == outputs_ && rows_ + nodes <= limits_.rows);
  max_positions_ = std::max(max_positions_, host_.committed[lane_] + limits_.depths);
  for (int64_t n = 0; n < nodes; ++n) {
    host_.output[outputs_] = narrow(rows_++);
    host_.spec[outputs_++] = spec;
  }
}

void RoundBatch::add_root(const SampleSpec& spec) {
  const int32_t committed = host_.committed[lane_];
  const int64_t row = add_row(host_.root[lane_], committed, committed);
  host_.tail_slots[row * limits_.depths] = committed;
  add_output(spec);
}

void RoundBatch::add_prompt_row(int32_t token, int64_t position) { add_row(token, position, position + 1); }

void RoundBatch::add_output(const SampleSpec& spec) {
  host_.output[outputs_] = narrow(rows_ - 1);
  host_.choose_position[outputs_] = host_.position[rows_ - 1] + 1;
  host_.parent[outputs_] = -1;
  host_.spec[outputs_++] = spec;
}

void RoundBatch::end_lane() { host_.begin[++lane_] = narrow(outputs_); }

// Of a sequence of their own where the last lane is padding: then they share no tile of attention with
// others.
void RoundBatch::add_inert_rows(int64_t count) {
  if (count == 0) return;
  REDRAFTER_CHECK(rows_ == outputs_ && rows_ + count <= limits_.rows && lane_ == lanes_);
  for (; count > 0; --count) {
    const int64_t row = rows_++;
    host_.token[row] = 0;
    host_.position[row] = host_.slot[row] = -1;
    host_.sequence[row] = narrow(lanes_ - 1);
    host_.context[row] = 0;
    host_.tail_begin[row] = narrow(row * limits_.depths);
    add_output({});
  }
}

void RoundBatch::upload_lanes(Stream& stream) const {
  const size_t bytes = static_cast<size_t>(host_.begin - host_.root) * sizeof(int32_t);
  backend_.upload_later(device_.root, host_.root, bytes, stream);
}

void RoundBatch::upload(Stream& stream) const {
  const auto* begin = static_cast<const uint8_t*>(host_memory_.data());
  const auto* end = reinterpret_cast<const uint8_t*>(host_.tables + lanes_ * limits_.table_stride);
  backend_.upload_later(device_memory_.as<void>(), begin, static_cast<size_t>(end - begin), stream);
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
  b.sequences = lanes_;
  b.max_positions = max_positions_;
  return b;
}

}  // namespace redrafter
