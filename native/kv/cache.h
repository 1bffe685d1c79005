// The paged KV cache: one pool of blocks of 16 tokens for all layers, reference-counted, shared by forks and
// copied on write. Belongs to the engine thread.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "ops/ops.h"

namespace redrafter {

struct KvShape {
  // `weights`: the dtype of the target's matrices, which decides that of the cache on some backends.
  KvShape(int64_t layer_count, int64_t heads, int64_t dim, int64_t block_count, const Backend& backend,
          DType weights)
      : layers(layer_count),
        kv_heads(heads),
        head_dim(dim),
        blocks(block_count),
        layout(backend.kv_layout(heads, dim, weights)) {}

  int64_t layers, kv_heads, head_dim;
  int64_t blocks;
  KvLayer layout;  // of the backend; no memory

  // Of one block of one layer as it is exported.
  int64_t k_block_floats() const { return kv_heads * head_dim * kBlockTokens; }
  int64_t v_block_floats() const { return kv_heads * kBlockTokens * head_dim_padded(head_dim); }
  int64_t block_floats() const { return k_block_floats() + v_block_floats(); }
  int64_t bytes_per_block() const {
    return layers * (layout.k_block_stride + layout.v_block_stride) *
           static_cast<int64_t>(dtype_bytes(layout.dtype));
  }
  // Throws ERR_OOM where 64 bits cannot count them.
  int64_t bytes() const;
};

class KvCache {
 public:
  KvCache(const KvShape& shape, const Backend& backend, Stream& stream);

  const KvLayer* layers() const { return layers_.data(); }  // [shape().layers]
  const KvShape& shape() const { return shape_; }
  int64_t free_blocks() const { return static_cast<int64_t>(free_.size()); }
  // Blocks that the prefix index alone holds. acquire() has them evicted when nothing is free, so whoever
  // asks whether there is room counts available_blocks().
  int64_t idle_blocks() const { return idle_count_; }
  int64_t available_blocks() const { return free_blocks() + idle_count_; }
  int64_t bytes_per_block() const { return shape_.bytes_per_block(); }

  // By sequences. Throws ERR_KV_FULL when no block is available.
  int32_t acquire();
  void share(int32_t block);
  void release(int32_t block);
  // Whether several sequences hold it.
  bool shared(int32_t block) const { return references_[static_cast<size_t>(block)] > 1; }

  // By the prefix index, once for each of its scopes: a block that a sequence holds too.
  void hold(int32_t block) { ++holds_[static_cast<size_t>(block)]; }
  void let_go(int32_t block);
  bool held(int32_t block) const { return holds_[static_cast<size_t>(block)] > 0; }
  bool idle(int32_t block) const { return held(block) && references_[static_cast<size_t>(block)] == 0; }
  // `evict` makes the index let go of something; false when it holds nothing.
  void on_pressure(std::function<bool()> evict) { evict_ = std::move(evict); }
  bool evict() { return evict_ != nullptr && evict_(); }

  // Counts whenever the number of sequences that hold some block changes.
  int64_t changes() const { return changes_; }

  void copy_block(int32_t from, int32_t to, int64_t tokens);
  // In every layer, for each lane: the slots committed + path[i] move to committed + i. Pointers are backend
  // memory.
  struct Paths {
    const int32_t* path;    // [lanes, stride]
    const int32_t* length;  // [lanes]
    int64_t lanes, stride;
  };
  void compact(const int32_t* block_tables, int64_t table_stride, const int32_t* committed,
               const Paths& paths);

  // A block of one layer in host memory, K then V: shape().block_floats() numbers. What lies past the block's
  // first `tokens` slots is scratch of other times and leaves as zeros. Both may run beside the engine
  // thread, on a stream of their own: export of a block that a snapshot holds, as nothing writes to it, and
  // import into a block that nobody else sees yet.
  void export_block(int64_t layer, int32_t block, int64_t tokens, float* to, Stream& stream) const;
  void import_block(int64_t layer, int32_t block, const float* from, Stream& stream);

  const Backend& backend() const { return backend_; }
  Stream& stream() const { return stream_; }

 private:
  KvShape shape_;
  const Backend& backend_;
  Stream& stream_;
  DeviceBuffer memory_;
  std::vector<KvLayer> layers_;
  std::vector<int32_t> free_;
  std::vector<int32_t> references_;  // of sequences
  std::vector<int32_t> holds_;       // of the prefix index
  int64_t idle_count_ = 0;           // blocks that are held and have no references
  int64_t changes_ = 0;
  std::function<bool()> evict_;
};

// The cached prefix of one session. Slots [0, length) hold committed tokens; slots past it are scratch for
// the rows of the current round.
class KvSequence {
 public:
  explicit KvSequence(KvCache& cache) : cache_(&cache) {}
  KvSequence(const KvSequence&) = delete;
  KvSequence& operator=(const KvSequence&) = delete;
  ~KvSequence() { truncate(0); }

  int64_t length() const { return length_; }
  const std::vector<int32_t>& blocks() const { return blocks_; }

  // Blocks that reserve(slots) must take from the pool, copies of shared blocks included.
  int64_t blocks_needed(int64_t slots) const;
  // Makes slots [length, slots) writable: takes blocks, copies a last block that other sequences share. One
  // that the prefix index holds is copied if there is room beyond what is needed, so that the index keeps it.
  void reserve(int64_t slots);
  // Commits slots up to `length`, which the last passes have written.
  void commit(int64_t length) { length_ = length; }
  // Keeps the first `length` committed tokens and returns every block past them.
  void truncate(int64_t length);
  // Exchanges block `index` for one that holds the same tokens up to its end, or appends it.
  void adopt(int64_t index, int32_t block);
  // Its blocks that other sequences hold too.
  int64_t shared_blocks() const;
  // Its blocks from number `first` on that somebody else holds too, the prefix index included.
  int64_t claimed_blocks(int64_t first) const;
  // Becomes a copy of `other` that shares its committed blocks.
  void fork_from(const KvSequence& other);

 private:
  KvCache* cache_;
  std::vector<int32_t> blocks_;
  int64_t length_ = 0;
};

}  // namespace redrafter
