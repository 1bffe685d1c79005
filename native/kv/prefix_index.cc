#include "kv/prefix_index.h"

#include <algorithm>

#include "base/check.h"

namespace redrafter {
namespace {

PrefixNode::Tokens tokens_of(const std::vector<int32_t>& tokens, int64_t block) {
  PrefixNode::Tokens key;
  std::copy_n(tokens.begin() + block * kBlockTokens, kBlockTokens, key.begin());
  return key;
}

}  // namespace

PrefixScope::~PrefixScope() {
  index_.remove_below(root_);
  index_.roots_.erase(&root_);
}

PrefixIndex::PrefixIndex(KvCache& cache, int64_t most_idle_blocks)
    : cache_(cache), most_idle_(most_idle_blocks) {
  cache_.on_pressure([this] { return evict(); });
}

PrefixIndex::~PrefixIndex() {
  keyed_.clear();
  cache_.on_pressure(nullptr);
}

std::shared_ptr<PrefixScope> PrefixIndex::scope(const std::string& key) {
  drop_unused_scopes();
  if (const auto at = keyed_.find(key); at != keyed_.end()) return at->second;
  auto found = std::make_shared<PrefixScope>(*this);
  roots_.insert(&found->root_);
  if (!key.empty()) keyed_[key] = found;
  return found;
}

// A key that nobody uses and that has nothing is not worth its name. Looked for when there are twice as many
// keys as were worth theirs.
void PrefixIndex::drop_unused_scopes() {
  if (keyed_.size() < sweep_at_) return;
  std::erase_if(keyed_, [](const auto& entry) {
    return entry.second.use_count() == 1 && entry.second->root_.children.empty();
  });
  sweep_at_ = 16 + 2 * keyed_.size();
}

PrefixNode* PrefixIndex::child(const PrefixNode& node, const std::vector<int32_t>& tokens,
                               int64_t block) const {
  const auto at = node.children.find(tokens_of(tokens, block));
  return at == node.children.end() ? nullptr : at->second.get();
}

std::vector<int32_t> PrefixIndex::find(const PrefixScope& scope, const std::vector<int32_t>& tokens,
                                       int64_t limit) const {
  std::vector<int32_t> blocks;
  const PrefixNode* node = &scope.root_;
  for (int64_t i = 0; (i + 1) * kBlockTokens <= limit; ++i) {
    node = child(*node, tokens, i);
    if (node == nullptr) break;
    blocks.push_back(node->block);
  }
  return blocks;
}

void PrefixIndex::take(PrefixScope& scope, const std::vector<int32_t>& tokens, int64_t limit,
                       KvSequence& kv) {
  ++clock_;
  PrefixNode* node = &scope.root_;
  for (int64_t i = 0; (i + 1) * kBlockTokens <= limit; ++i) {
    node = child(*node, tokens, i);
    if (node == nullptr) return;
    touch(*node);
    if ((i + 1) * kBlockTokens <= kv.length()) continue;
    kv.adopt(i, node->block);
    kv.commit((i + 1) * kBlockTokens);
  }
}

void PrefixIndex::add(PrefixScope& scope, const std::vector<int32_t>& tokens, KvSequence& kv) {
  if (!enabled()) return;
  ++clock_;
  PrefixNode* node = &scope.root_;
  for (int64_t i = 0; (i + 1) * kBlockTokens <= kv.length(); ++i) {
    const int32_t block = kv.blocks()[static_cast<size_t>(i)];
    if (PrefixNode* known = child(*node, tokens, i); known != nullptr) {
      if (known->block != block) kv.adopt(i, known->block);
      node = known;
    } else {
      leaves_.erase({node->used, node});
      const auto at = node->children.emplace(tokens_of(tokens, i), std::make_unique<PrefixNode>()).first;
      PrefixNode& added = *at->second;
      added.parent = node;
      added.tokens = &at->first;
      added.block = block;
      cache_.hold(block);
      leaves_.emplace(added.used, &added);
      node = &added;
    }
    touch(*node);
  }
}

void PrefixIndex::forget(PrefixScope& scope, const std::vector<int32_t>& tokens, int64_t first) {
  PrefixNode* node = &scope.root_;
  for (int64_t i = 0; i <= first; ++i) {
    if ((i + 1) * kBlockTokens > static_cast<int64_t>(tokens.size())) return;
    node = child(*node, tokens, i);
    if (node == nullptr) return;
  }
  remove_below(*node);
  remove(*node);
}

void PrefixIndex::touch(PrefixNode& node) {
  if (leaves_.erase({node.used, &node}) > 0) leaves_.emplace(clock_, &node);
  node.used = clock_;
}

void PrefixIndex::remove(PrefixNode& leaf) {
  PrefixNode& parent = *leaf.parent;
  leaves_.erase({leaf.used, &leaf});
  cache_.let_go(leaf.block);
  parent.children.erase(parent.children.find(*leaf.tokens));
  if (parent.parent != nullptr && parent.children.empty()) leaves_.emplace(parent.used, &parent);
}

// Without recursion: a chain is as long as a context.
void PrefixIndex::remove_below(PrefixNode& top) {
  PrefixNode* node = &top;
  for (;;) {
    if (!node->children.empty()) {
      node = node->children.begin()->second.get();
    } else if (node == &top) {
      return;
    } else {
      PrefixNode* const parent = node->parent;
      remove(*node);
      node = parent;
    }
  }
}

// Where sequences hold all leaves, the least recently used one goes nevertheless: what is idle lies before
// it.
bool PrefixIndex::evict() {
  if (leaves_.empty()) return false;
  const auto idle = std::find_if(leaves_.begin(), leaves_.end(),
                                 [this](const Leaf& leaf) { return cache_.idle(leaf.second->block); });
  const int64_t free = cache_.free_blocks();
  remove(*(idle == leaves_.end() ? leaves_.begin() : idle)->second);
  evicted_ += cache_.free_blocks() - free;
  return true;
}

void PrefixIndex::trim() {
  while (cache_.idle_blocks() > most_idle_ && evict()) {
  }
}

void PrefixIndex::clear(const std::string& key) {
  if (const auto at = keyed_.find(key); at != keyed_.end()) remove_below(at->second->root_);
}

void PrefixIndex::clear() {
  for (PrefixNode* root : roots_) remove_below(*root);
}

}  // namespace redrafter
