#include "kv/cache.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace redrafter {
namespace {

int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

// Elements from a layer to the next: all its keys, then all its values.
int64_t layer_stride(const KvShape& shape) {
  return (shape.layout.k_block_stride + shape.layout.v_block_stride) * shape.blocks;
}

}  // namespace

KvCache::KvCache(const KvShape& shape, const Backend& backend, Stream& stream)
    : shape_(shape),
      backend_(backend),
      stream_(stream),
      memory_(backend, static_cast<size_t>(shape.bytes())),
      references_(static_cast<size_t>(shape.blocks), 0),
      holds_(static_cast<size_t>(shape.blocks), 0) {
  const int64_t element = static_cast<int64_t>(dtype_bytes(shape.layout.dtype));
  for (int64_t i = 0; i < shape.layers; ++i) {
    KvLayer layer = shape.layout;
    const int64_t first = i * layer_stride(shape);
    layer.k = memory_.as<char>() + first * element;
    layer.v = memory_.as<char>() + (first + layer.k_block_stride * shape.blocks) * element;
    layers_.push_back(layer);
  }
  for (int64_t block = shape.blocks - 1; block >= 0; --block) free_.push_back(static_cast<int32_t>(block));
}

int64_t KvShape::bytes() const {
  REDRAFTER_REQUIRE(blocks <= INT64_MAX / bytes_per_block(), "ERR_OOM", "a KV cache of ", blocks,
                    " blocks is too large");
  return blocks * bytes_per_block();
}

int32_t KvCache::acquire() {
  while (free_.empty() && evict()) {
  }
  REDRAFTER_REQUIRE(!free_.empty(), "ERR_KV_FULL", "all ", shape_.blocks, " KV blocks are in use");
  const int32_t block = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(block)] = 1;
  ++changes_;
  return block;
}

void KvCache::share(int32_t block) {
  if (idle(block)) --idle_count_;
  ++references_[static_cast<size_t>(block)];
  ++changes_;
}

void KvCache::release(int32_t block) {
  ++changes_;
  if (--references_[static_cast<size_t>(block)] > 0) return;
  if (held(block)) {
    ++idle_count_;
  } else {
    free_.push_back(block);
  }
}

void KvCache::let_go(int32_t block) {
  const bool was_idle = idle(block);
  if (--holds_[static_cast<size_t>(block)] > 0 || !was_idle) return;
  --idle_count_;
  free_.push_back(block);
}

void KvCache::copy_block(int32_t from, int32_t to, int64_t tokens) {
  for (const KvLayer& kv : layers_) backend_.kv_copy_block({kv, from, to, tokens}, stream_);
}

void KvCache::compact(const int32_t* block_tables, int64_t table_stride, const int32_t* committed,
                      const Paths& paths) {
  backend_.kv_compact({layers_.front(), block_tables, committed, paths.path, paths.length, paths.lanes,
                       table_stride, paths.stride, shape_.layers, layer_stride(shape_)},
                      stream_);
}

void KvCache::export_block(int64_t layer, int32_t block, int64_t tokens, float* to, Stream& stream) const {
  const DeviceBuffer staging(backend_, static_cast<size_t>(shape_.block_floats()) * sizeof(float));
  backend_.kv_export({layers_[static_cast<size_t>(layer)], block, tokens, staging.as<float>()}, stream);
  backend_.download(to, staging.as<void>(), staging.bytes(), stream);
}

void KvCache::import_block(int64_t layer, int32_t block, const float* from, Stream& stream) {
  const DeviceBuffer staging(backend_, static_cast<size_t>(shape_.block_floats()) * sizeof(float));
  backend_.upload(staging.as<void>(), from, staging.bytes(), stream);
  backend_.kv_import({layers_[static_cast<size_t>(layer)], block, kBlockTokens, staging.as<float>()}, stream);
  backend_.wait(stream);  // the staging goes, and other streams may read the block
}

int64_t KvSequence::blocks_needed(int64_t slots) const {
  const int64_t owned = static_cast<int64_t>(blocks_.size());
  const int64_t last = length_ / kBlockTokens;
  const bool copies = slots > length_ && last < owned && cache_->shared(blocks_[static_cast<size_t>(last)]);
  return std::max<int64_t>(0, blocks_for(slots) - owned) + (copies ? 1 : 0);
}

void KvSequence::reserve(int64_t slots) {
  if (slots <= length_) return;
  // Blocks past the committed ones are never shared, so only the block that `length` falls into can be.
  const size_t last = static_cast<size_t>(length_ / kBlockTokens);
  if (last < blocks_.size()) {
    const int32_t old = blocks_[last];
    const int64_t rest = blocks_for(slots) - static_cast<int64_t>(blocks_.size());
    while (!cache_->shared(old) && cache_->held(old) && cache_->available_blocks() <= rest) {
      REDRAFTER_CHECK(cache_->evict());
    }
    if (cache_->shared(old) || cache_->held(old)) {
      const int32_t own = cache_->acquire();
      cache_->copy_block(old, own, length_ % kBlockTokens);
      cache_->release(old);
      blocks_[last] = own;
    }
  }
  while (static_cast<int64_t>(blocks_.size()) < blocks_for(slots)) blocks_.push_back(cache_->acquire());
}

void KvSequence::truncate(int64_t length) {
  length_ = std::min(length_, length);
  while (static_cast<int64_t>(blocks_.size()) > blocks_for(length_)) {
    cache_->release(blocks_.back());
    blocks_.pop_back();
  }
}

void KvSequence::adopt(int64_t index, int32_t block) {
  const size_t at = static_cast<size_t>(index);
  REDRAFTER_CHECK(at <= blocks_.size());
  cache_->share(block);
  if (at == blocks_.size()) {
    blocks_.push_back(block);
  } else {
    cache_->release(std::exchange(blocks_[at], block));
  }
}

int64_t KvSequence::shared_blocks() const {
  return std::count_if(blocks_.begin(), blocks_.end(),
                       [this](int32_t block) { return cache_->shared(block); });
}

int64_t KvSequence::claimed_blocks(int64_t first) const {
  const auto from = blocks_.begin() + std::min<int64_t>(first, static_cast<int64_t>(blocks_.size()));
  return std::count_if(from, blocks_.end(),
                       [this](int32_t block) { return cache_->shared(block) || cache_->held(block); });
}

void KvSequence::fork_from(const KvSequence& other) {
  truncate(0);
  length_ = other.length_;
  blocks_.assign(other.blocks_.begin(), other.blocks_.begin() + blocks_for(length_));
  for (const int32_t block : blocks_) cache_->share(block);
}

}  // namespace redrafter
