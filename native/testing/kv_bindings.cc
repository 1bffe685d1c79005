// The ops that read or write the paged cache.
#include <algorithm>

#include "testing/op_call.h"

namespace redrafter::testing {
namespace {

struct Cache {
  KvLayer layer;
  int64_t blocks;
};

int64_t block_floats(const KvLayer& kv) {
  return kv.kv_heads * kBlockTokens * (kv.head_dim + head_dim_padded(kv.head_dim));
}

// kv {k, v, kvHeads, headDim}: all blocks of one layer in the CPU's layout; `dtype` of weights for a backend
// whose cache has theirs.
Cache cache_of(OpCall& call, const Fields& p) {
  const Fields f = p.object("kv");
  const int64_t heads = f.integer("kvHeads"), dim = f.integer("headDim");
  REDRAFTER_REQUIRE(heads > 0 && dim > 0 && dim % 2 == 0, "ERR_INVALID_ARGUMENT", "kvHeads or headDim");
  const int64_t k_floats = heads * dim * kBlockTokens, v_floats = heads * kBlockTokens * head_dim_padded(dim);
  const int64_t blocks = f.length<float>("k") / k_floats;
  const float *k = f.host<float>("k", blocks * k_floats), *v = f.host<float>("v", blocks * v_floats);
  const DType weights = f.has("dtype") ? dtype_of(f.text("dtype")) : DType::kBF16;
  KvLayer layer = call.backend().kv_layout(heads, dim, weights);
  const int64_t bytes = static_cast<int64_t>(dtype_bytes(layer.dtype));
  layer.k = call.allocate(static_cast<size_t>(blocks * layer.k_block_stride * bytes));
  layer.v = call.allocate(static_cast<size_t>(blocks * layer.v_block_stride * bytes));
  float* staging = call.scratch(k_floats + v_floats);
  for (int64_t block = 0; block < blocks; ++block) {
    call.upload(staging, k + block * k_floats, static_cast<size_t>(k_floats) * sizeof(float));
    call.upload(staging + k_floats, v + block * v_floats, static_cast<size_t>(v_floats) * sizeof(float));
    call.backend().kv_import({layer, static_cast<int32_t>(block), kBlockTokens, staging}, call.stream());
  }
  return {layer, blocks};
}

// batch {position, slot, sequence, context, tailBegin, tailSlots, blockTables, tableStride}
Batch batch_of(const Fields& p, int64_t blocks) {
  const Fields f = p.object("batch");
  Batch b;
  b.rows = f.length<int32_t>("position");
  b.table_stride = f.integer("tableStride");
  REDRAFTER_REQUIRE(b.table_stride > 0, "ERR_INVALID_ARGUMENT", "tableStride");
  const int64_t sequences = f.length<int32_t>("blockTables") / b.table_stride;
  const int64_t slots = b.table_stride * kBlockTokens;
  const int64_t tails = f.length<int32_t>("tailSlots");
  b.block_tables = f.indices("blockTables", sequences * b.table_stride, 0, blocks);
  b.position = f.indices("position", b.rows, 0, slots);
  b.slot = f.indices("slot", b.rows, 0, slots);
  b.sequence = f.indices("sequence", b.rows, 0, sequences);
  b.context = f.indices("context", b.rows, 0, slots + 1);
  b.tail_begin = f.indices("tailBegin", b.rows + 1, 0, tails + 1);
  b.tail_slots = f.indices("tailSlots", tails, 0, slots);
  const auto begin = f.get("tailBegin").As<Napi::Int32Array>(),
             context = f.get("context").As<Napi::Int32Array>(),
             position = f.get("position").As<Napi::Int32Array>();
  b.sequences = sequences;
  for (size_t r = 0; r < static_cast<size_t>(b.rows); ++r) {
    REDRAFTER_REQUIRE(begin[r + 1] - begin[r] == position[r] + 1 - context[r], "ERR_INVALID_ARGUMENT", "row ",
                      r, ": context and tail do not make position + 1");
    b.max_positions = std::max<int64_t>(b.max_positions, position[r] + 1);
  }
  return b;
}

Napi::Object result_of(OpCall& call, const Cache& cache) {
  const KvLayer& kv = cache.layer;
  const size_t k_floats = static_cast<size_t>(kv.kv_heads * kv.head_dim * kBlockTokens);
  const size_t v_floats = static_cast<size_t>(block_floats(kv)) - k_floats;
  auto k = Napi::Float32Array::New(call.env(), static_cast<size_t>(cache.blocks) * k_floats);
  auto v = Napi::Float32Array::New(call.env(), static_cast<size_t>(cache.blocks) * v_floats);
  float* staging = call.scratch(block_floats(kv));
  for (size_t block = 0; block < static_cast<size_t>(cache.blocks); ++block) {
    call.backend().kv_export({kv, static_cast<int32_t>(block), kBlockTokens, staging}, call.stream());
    call.download(k.Data() + block * k_floats, staging, k_floats * sizeof(float));
    call.download(v.Data() + block * v_floats, staging + k_floats, v_floats * sizeof(float));
  }
  auto result = Napi::Object::New(call.env());
  result["k"] = k;
  result["v"] = v;
  return result;
}

// rope {qkv, cosSin, kv, batch, heads}: {qkv, k, v}
Napi::Value rope(OpCall& call) {
  const Fields& p = call.params();
  const Cache cache = cache_of(call, p);
  const Batch batch = batch_of(p, cache.blocks);
  const int64_t heads = p.integer("heads"), dim = cache.layer.head_dim;
  const int64_t positions = p.length<float>("cosSin") / dim;
  p.object("batch").indices("position", batch.rows, 0, positions);
  float* qkv = p.in<float>("qkv", batch.rows * (heads + 2 * cache.layer.kv_heads) * dim);
  call.backend().rope({qkv, p.in<float>("cosSin", positions * dim), cache.layer, batch, heads},
                      call.stream());
  auto result = result_of(call, cache);
  result["qkv"] = call.take(qkv);
  return result;
}

// attention {qkv, kv, batch, heads, scale, maxPositions?}
Napi::Value attention(OpCall& call) {
  const Fields& p = call.params();
  const Cache cache = cache_of(call, p);
  const Batch batch = batch_of(p, cache.blocks);
  const int64_t heads = p.integer("heads"), kv_heads = cache.layer.kv_heads, dim = cache.layer.head_dim;
  REDRAFTER_REQUIRE(heads > 0 && heads % kv_heads == 0 && heads / kv_heads <= 64, "ERR_INVALID_ARGUMENT",
                    "heads");
  const auto position = p.object("batch").get("position").As<Napi::Int32Array>();
  int64_t longest = p.has("maxPositions") ? p.integer("maxPositions") : 1;
  for (size_t r = 0; r < position.ElementLength(); ++r) longest = std::max<int64_t>(longest, position[r] + 1);
  const auto context = p.object("batch").get("context").As<Napi::Int32Array>();
  for (size_t r = 0; r < context.ElementLength(); ++r) longest = std::max<int64_t>(longest, context[r]);
  const int64_t stride = attention_scratch(heads, kv_heads, dim, longest);
  float* y = call.out<float>(batch.rows * heads * dim);
  call.backend().attention(
      {p.in<float>("qkv", batch.rows * (heads + 2 * kv_heads) * dim), y, cache.layer, batch, heads,
       static_cast<float>(p.number("scale")), call.scratch(call.threads() * stride), stride},
      call.stream());
  return call.take(y);
}

// kvCompact {kv, blockTable, from, toSlot}: {k, v}; from[i] moves to toSlot + i
Napi::Value kv_compact(OpCall& call) {
  const Fields& p = call.params();
  const Cache cache = cache_of(call, p);
  const int64_t entries = p.length<int32_t>("blockTable"), count = p.length<int32_t>("from");
  const int64_t to_slot = p.integer("toSlot"), slots = entries * kBlockTokens;
  REDRAFTER_REQUIRE(to_slot + count <= slots, "ERR_INVALID_ARGUMENT", "toSlot");
  std::vector<int32_t> path(p.host<int32_t>("from", count), p.host<int32_t>("from", count) + count);
  for (int32_t& node : path) node -= static_cast<int32_t>(to_slot);
  const int32_t committed = static_cast<int32_t>(to_slot), length = static_cast<int32_t>(count);
  int32_t *nodes = call.out<int32_t>(count), *lane = call.out<int32_t>(2);
  call.upload(nodes, path.data(), path.size() * sizeof(int32_t));
  call.upload(lane, &committed, sizeof committed);
  call.upload(lane + 1, &length, sizeof length);
  p.indices("from", count, 0, slots);
  call.backend().kv_compact({cache.layer, p.indices("blockTable", entries, 0, cache.blocks), lane, nodes,
                             lane + 1, 1, entries, count},
                            call.stream());
  return result_of(call, cache);
}

// kvCopyBlock {kv, from, to, tokens}: {k, v}
Napi::Value kv_copy_block(OpCall& call) {
  const Fields& p = call.params();
  const Cache cache = cache_of(call, p);
  const int64_t from = p.integer("from"), to = p.integer("to"), tokens = p.integer("tokens");
  REDRAFTER_REQUIRE(from < cache.blocks && to < cache.blocks && tokens <= kBlockTokens,
                    "ERR_INVALID_ARGUMENT", "from, to or tokens");
  call.backend().kv_copy_block({cache.layer, static_cast<int32_t>(from), static_cast<int32_t>(to), tokens},
                               call.stream());
  return result_of(call, cache);
}

}  // namespace

void add_kv_ops(Napi::Object ops) {
  add_op<rope>(ops, "rope");
  add_op<attention>(ops, "attention");
  add_op<kv_compact>(ops, "kvCompact");
  add_op<kv_copy_block>(ops, "kvCopyBlock");
}

}  // namespace redrafter::testing
