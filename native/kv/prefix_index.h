// Which blocks hold the keys and values of which tokens: full blocks of committed tokens as a tree, so that a
// sequence whose tokens begin alike takes blocks instead of computing them. Tokens are compared, never
// hashes. A scope is a tree of its own, and nothing is found across scopes: what may share KV is what may
// learn, by how long a prompt takes, that somebody had the same one. Belongs to the engine thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "kv/cache.h"

namespace redrafter {

class PrefixIndex;

struct PrefixNode {
  using Tokens = std::array<int32_t, kBlockTokens>;

  PrefixNode* parent = nullptr;
  const Tokens* tokens = nullptr;  // its key in parent->children
  int32_t block = -1;
  int64_t used = 0;  // when, in uses of the index
  std::map<Tokens, std::unique_ptr<PrefixNode>> children;
};

// Lets go of its blocks when it goes. The index of a scope must outlive it.
class PrefixScope {
 public:
  explicit PrefixScope(PrefixIndex& index) : index_(index) {}
  PrefixScope(const PrefixScope&) = delete;
  PrefixScope& operator=(const PrefixScope&) = delete;
  ~PrefixScope();

 private:
  friend class PrefixIndex;
  PrefixIndex& index_;
  PrefixNode root_;
};

class PrefixIndex {
 public:
  // Keeps at most `most_idle_blocks` that nobody else holds; with 0 it keeps nothing, and finds nothing.
  PrefixIndex(KvCache& cache, int64_t most_idle_blocks);
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;
  ~PrefixIndex();

  // The scope of that key, which is kept when nobody uses it; without a key a scope that goes with its user.
  std::shared_ptr<PrefixScope> scope(const std::string& key);

  // The blocks of the longest prefix of the first `limit` tokens.
  std::vector<int32_t> find(const PrefixScope& scope, const std::vector<int32_t>& tokens,
                            int64_t limit) const;
  // Makes kv, which holds a prefix of `tokens`, hold the longest one that find() finds, if that is longer.
  // Takes nothing from the pool.
  void take(PrefixScope& scope, const std::vector<int32_t>& tokens, int64_t limit, KvSequence& kv);
  // Puts in the full blocks of kv, which holds a prefix of `tokens`. Where the scope has a block of the same
  // tokens, kv takes that one for its own.
  void add(PrefixScope& scope, const std::vector<int32_t>& tokens, KvSequence& kv);
  // Forgets block `first` of `tokens` and all that follows on it.
  void forget(PrefixScope& scope, const std::vector<int32_t>& tokens, int64_t first);

  // Evicts what is more than the most that may be idle: the least recently used leaf first.
  void trim();
  // Forgets the scope of that key, or all scopes.
  void clear(const std::string& key);
  void clear();

  // Blocks that became free by eviction, so far.
  int64_t evicted_blocks() const { return evicted_; }

 private:
  friend class PrefixScope;
  using Leaf = std::pair<int64_t, PrefixNode*>;  // least recently used first

  bool enabled() const { return most_idle_ > 0; }
  PrefixNode* child(const PrefixNode& node, const std::vector<int32_t>& tokens, int64_t block) const;
  void touch(PrefixNode& node);
  void remove(PrefixNode& leaf);
  void remove_below(PrefixNode& node);
  bool evict();
  void drop_unused_scopes();

  KvCache& cache_;
  const int64_t most_idle_;
  int64_t clock_ = 0, evicted_ = 0;
  std::set<PrefixNode*> roots_;  // of all scopes
  std::set<Leaf> leaves_;
  std::map<std::string, std::shared_ptr<PrefixScope>> keyed_;
  size_t sweep_at_ = 16;  // keys
};

}  // namespace redrafter
