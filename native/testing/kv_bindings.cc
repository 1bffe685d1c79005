// The ops that read or write the paged cache.
#include <algorithm>

#include "testing/op_call.h"

namespace redrafter::testing {
namespace {

struct Cache {
  KvLayer layer;  // the first
  int64_t blocks, layers, layer_stride;

  // Block `i` of all blocks of all layers, as an argument of kv_import and kv_export.
  KvBlockParams block(int64_t i, float* data) const {
    KvLayer kv = layer;
    const int64_t bytes = i / blocks * layer_stride * static_cast<int64_t>(dtype_bytes(kv.dtype));
    kv.k = static_cast<char*>(kv.k) + bytes;
    kv.v = static_cast<char*>(kv.v) + bytes;
    return {kv, static_cast<int32_t>(i % blocks), kBlockTokens, data};
  }
};

int64_t block_floats(const KvLayer& kv) {
  return kv.kv_heads * kBlockTokens * (kv.head_dim + head_dim_padded(kv.head_dim));
}

// kv {k, v, kvHeads, headDim, layers?}: all blocks of one layer, or of one after the other, in the CPU's
// layout; `dtype` of weights for a backend whose cache has theirs.
Cache cache_of(OpCall& call, const Fields& p) {
  const Fields f = p.object("kv");
  const int64_t heads = f.integer("kvHeads"), dim = f.integer("headDim");
  const int64_t layers = f.has("layers") ? f.integer("layers") : 1;
  REDRAFTER_REQUIRE(heads > 0 && dim > 0 && dim % 2 == 0 && layers > 0, "ERR_INVALID_ARGUMENT",
                    "kvHeads, headDim or layers");
  const int64_t k_floats = heads * dim * kBlockTokens, v_floats = heads * kBlockTokens * head_dim_padded(dim);
  const int64_t all = f.length<float>("k") / k_floats;
  REDRAFTER_REQUIRE(all % layers == 0, "ERR_INVALID_ARGUMENT", "layers of different sizes");
  const float *k = f.host<float>("k", all * k_floats), *v = f.host<float>("v", all * v_floats);
  const DType weights = f.has("dtype") ? dtype_of(f.text("dtype")) : DType::kBF16;
  KvLayer layer = call.backend().kv_layout(heads, dim, weights);
  // One stride for k and for v, whose blocks are of different sizes.
  const int64_t blocks = all / layers;
  const int64_t stride = blocks * std::max(layer.k_block_stride, layer.v_block_stride);
  const int64_t bytes = static_cast<int64_t>(dtype_bytes(layer.dtype)), others = (layers - 1) * stride;
  layer.k = call.allocate(static_cast<size_t>((others + blocks * layer.k_block_stride) * bytes));
  layer.v = call.allocate(static_cast<size_t>((others + blocks * layer.v_block_stride) * bytes));
  const Cache cache{layer, blocks, layers, stride};
  float* staging = call.scratch(k_floats + v_floats);
  for (int64_t i = 0; i < all; ++i) {
    call.upload(staging, k + i * k_floats, static_cast<size_t>(k_floats) * sizeof(float));
    call.upload(staging + k_floats, v + i * v_floats, static_cast<size_t>(v_floats) * sizeof(float));
    call.backend().kv_import(cache.block(i, staging), call.stream());
  }
  return cache;
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
  b.position = f.indices("position", b.rows, -1, slots);
  b.slot = f.indices("slot", b.rows, -1, slots);
  b.sequence = f.indices("sequence", b.rows, 0, sequences);
  b.context = f.indices("context", b.rows, 0, slots + 1);
  b.tail_begin = f.indices("tailBegin", b.rows + 1, 0, tails + 1);
  b.tail_slots = f.indices("tailSlots", tails, 0, slots);
  const auto begin = f.get("tailBegin").As<Napi::Int32Array>(),
             context = f.get("context").As<Napi::Int32Array>(),
             position = f.get("position").As<Napi::Int32Array>(), slot = f.get("slot").As<Napi::Int32Array>();
  b.sequences = sequences;
  for (size_t r = 0; r < static_cast<size_t>(b.rows); ++r) {
    const int64_t tail = position[r] + 1 - context[r];
    REDRAFTER_REQUIRE(tail >= 0 && begin[r] + tail <= begin[r + 1], "ERR_INVALID_ARGUMENT", "row ", r,
                      ": context and tail do not make position + 1");
    REDRAFTER_REQUIRE((position[r] < 0) == (slot[r] < 0), "ERR_INVALID_ARGUMENT", "row ", r,
                      " is half inert");
    b.max_positions = std::max<int64_t>(b.max_positions, position[r] + 1);
  }
  return b;
}

Napi::Object result_of(OpCall& call, const Cache& cache) {
  const KvLayer& kv = cache.layer;
  const size_t k_floats = static_cast<size_t>(kv.kv_heads * kv.head_dim * kBlockTokens);
  const size_t v_floats = static_cast<size_t>(block_floats(kv)) - k_floats;
  const auto all = static_cast<size_t>(cache.layers * cache.blocks);
  auto k = Napi::Float32Array::New(call.env(), all * k_floats);
  auto v = Napi::Float32Array::New(call.env(), all * v_floats);
  float* staging = call.scratch(block_floats(kv));
  for (size_t i = 0; i < all; ++i) {
    call.backend().kv_export(cache.block(static_cast<int64_t>(i), staging), call.stream());
    call.download(k.Data() + i * k_floats, staging, k_floats * sizeof(float));
    call.download(v.Data() + i * v_floats, staging + k_floats, v_floats * sizeof(float));
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
  p.object("batch").indices("position", batch.rows, -1, positions);
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

// kvCompact {kv, blockTables, tableStride, committed, path, pathStride, pathLength}: {k, v}
Napi::Value kv_compact(OpCall& call) {
  const Fields& p = call.params();
  const Cache cache = cache_of(call, p);
  const int64_t lanes = p.length<int32_t>("committed"), table_stride = p.integer("tableStride");
  const int64_t path_stride = p.integer("pathStride"), slots = table_stride * kBlockTokens;
  const int32_t *committed = p.host<int32_t>("committed", lanes),
                *path = p.host<int32_t>("path", lanes * path_stride),
                *length = p.host<int32_t>("pathLength", lanes);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const int32_t* nodes = path + lane * path_stride;
    for (int64_t i = 0; i < length[lane]; ++i) {
      REDRAFTER_REQUIRE(i < path_stride && nodes[i] >= i && (i == 0 || nodes[i] > nodes[i - 1]) &&
                            committed[lane] >= 0 && committed[lane] + nodes[i] < slots,
                        "ERR_INVALID_ARGUMENT", "path of lane ", lane);
    }
  }
  call.backend().kv_compact({cache.layer, p.indices("blockTables", lanes * table_stride, 0, cache.blocks),
                             p.in<int32_t>("committed", lanes), p.in<int32_t>("path", lanes * path_stride),
                             p.in<int32_t>("pathLength", lanes), lanes, table_stride, path_stride,
                             cache.layers, cache.layer_stride},
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
