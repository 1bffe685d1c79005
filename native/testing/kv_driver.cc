// A KvCache with numbered sequences, for the model-based test of native/kv.
#include <map>
#include <memory>

#include "kv/cache.h"
#include "testing/levels.h"
#include "testing/op_call.h"

namespace redrafter::testing {
namespace {

using Info = Napi::CallbackInfo;

struct Driver {
  Driver(const KvShape& shape, const Backend& backend)
      : pool(1), stream{&pool, nullptr}, cache(shape, backend, stream) {}

  KvSequence& sequence(const Napi::Value& id) {
    const auto found = sequences.find(id.As<Napi::Number>().Int32Value());
    REDRAFTER_REQUIRE(found != sequences.end(), "ERR_INVALID_ARGUMENT", "no such sequence");
    return *found->second;
  }
  // Calls body(layer, address) for each float of one slot: per layer K of every head, then V.
  template <typename Body>
  void each(const KvSequence& s, int64_t slot, const Body& body) {
    REDRAFTER_REQUIRE(slot >= 0 && slot / kBlockTokens < static_cast<int64_t>(s.blocks().size()),
                      "ERR_INVALID_ARGUMENT", "slot ", slot, " has no block");
    const int64_t block = s.blocks()[static_cast<size_t>(slot / kBlockTokens)], offset = slot % kBlockTokens;
    for (int64_t i = 0; i < cache.shape().layers; ++i) {
      const KvLayer& kv = cache.layers()[i];
      for (int64_t n = 0; n < kv.kv_heads * kv.head_dim; ++n) {
        body(kv.k_floats() + block * kv.k_block_stride + n * kBlockTokens + offset);
      }
      for (int64_t n = 0; n < kv.kv_heads * kv.head_dim; ++n) {
        body(kv.v_floats() + block * kv.v_block_stride +
             (n / kv.head_dim * kBlockTokens + offset) * head_dim_padded(kv.head_dim) + n % kv.head_dim);
      }
    }
  }
  int64_t slot_floats() const {
    const KvShape& shape = cache.shape();
    return shape.layers * 2 * shape.kv_heads * shape.head_dim;
  }

  ThreadPool pool;
  Stream stream;
  KvCache cache;
  std::map<int32_t, std::unique_ptr<KvSequence>> sequences;
  int32_t next_id = 0;
};

int64_t integer(const Napi::Value& value) {
  REDRAFTER_REQUIRE(value.IsNumber(), "ERR_INVALID_ARGUMENT", "not a number");
  const int64_t number = value.As<Napi::Number>().Int64Value();
  REDRAFTER_REQUIRE(number >= 0 && number < int64_t{1} << 31, "ERR_INVALID_ARGUMENT", "not in 0..2^31-1");
  return number;
}

int64_t reserved_slots(const KvSequence& s) { return static_cast<int64_t>(s.blocks().size()) * kBlockTokens; }

Napi::Value open(Driver& d, const Info& info) {
  d.sequences[d.next_id] = std::make_unique<KvSequence>(d.cache);
  return Napi::Number::New(info.Env(), d.next_id++);
}

Napi::Value close(Driver& d, const Info& info) {
  d.sequence(info[0]);
  d.sequences.erase(info[0].As<Napi::Number>().Int32Value());
  return info.Env().Undefined();
}

Napi::Value length(Driver& d, const Info& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(d.sequence(info[0]).length()));
}

Napi::Value blocks(Driver& d, const Info& info) {
  const auto& list = d.sequence(info[0]).blocks();
  auto array = Napi::Int32Array::New(info.Env(), list.size());
  std::copy(list.begin(), list.end(), array.Data());
  return array;
}

Napi::Value blocks_needed(Driver& d, const Info& info) {
  return Napi::Number::New(info.Env(),
                           static_cast<double>(d.sequence(info[0]).blocks_needed(integer(info[1]))));
}

Napi::Value reserve(Driver& d, const Info& info) {
  d.sequence(info[0]).reserve(integer(info[1]));
  return info.Env().Undefined();
}

Napi::Value commit(Driver& d, const Info& info) {
  KvSequence& s = d.sequence(info[0]);
  const int64_t to = integer(info[1]);
  REDRAFTER_REQUIRE(to >= s.length() && to <= reserved_slots(s), "ERR_INVALID_ARGUMENT",
                    "commit of unreserved slots");
  s.commit(to);
  return info.Env().Undefined();
}

// truncate(id, length, forgets): with a third argument, the release of the last block is forgotten.
Napi::Value truncate(Driver& d, const Info& info) {
  KvSequence& s = d.sequence(info[0]);
  if (info.Length() > 2 && !s.blocks().empty()) d.cache.share(s.blocks().back());
  s.truncate(integer(info[1]));
  return info.Env().Undefined();
}

// fork(id, from)
Napi::Value fork(Driver& d, const Info& info) {
  KvSequence &s = d.sequence(info[0]), &from = d.sequence(info[1]);
  REDRAFTER_REQUIRE(&s != &from, "ERR_INVALID_ARGUMENT", "fork of itself");
  s.fork_from(from);
  return info.Env().Undefined();
}

// write(id, slot, values)
Napi::Value write(Driver& d, const Info& info) {
  const auto values = info[2].As<Napi::Float32Array>();
  REDRAFTER_REQUIRE(static_cast<int64_t>(values.ElementLength()) == d.slot_floats(), "ERR_INVALID_ARGUMENT",
                    "values");
  const float* from = values.Data();
  d.each(d.sequence(info[0]), integer(info[1]),
         [&](float* to) { d.cache.backend().upload(to, from++, sizeof(float), d.stream); });
  return info.Env().Undefined();
}

// read(id, slot)
Napi::Value read(Driver& d, const Info& info) {
  auto values = Napi::Float32Array::New(info.Env(), static_cast<size_t>(d.slot_floats()));
  float* to = values.Data();
  d.each(d.sequence(info[0]), integer(info[1]),
         [&](float* from) { d.cache.backend().download(to++, from, sizeof(float), d.stream); });
  return values;
}

// compact(id, from, to): slots from[] move to `to`, to + 1, ...
Napi::Value compact(Driver& d, const Info& info) {
  KvSequence& s = d.sequence(info[0]);
  const auto from = info[1].As<Napi::Int32Array>();
  const int64_t to = integer(info[2]), count = static_cast<int64_t>(from.ElementLength());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t slot = from.Data()[i];
    REDRAFTER_REQUIRE(slot >= to + i && slot < reserved_slots(s), "ERR_INVALID_ARGUMENT", "from");
  }
  const Backend& backend = d.cache.backend();
  const int32_t committed = static_cast<int32_t>(to), length = static_cast<int32_t>(count);
  std::vector<int32_t> path(from.Data(), from.Data() + count);
  for (int32_t& node : path) node -= committed;
  DeviceBuffer table(backend, s.blocks().size() * 4 + 4), nodes(backend, from.ByteLength() + 4),
      lane(backend, 8);
  backend.upload(table.as<int32_t>(), s.blocks().data(), s.blocks().size() * 4, d.stream);
  backend.upload(nodes.as<int32_t>(), path.data(), path.size() * 4, d.stream);
  backend.upload(lane.as<int32_t>(), &committed, 4, d.stream);
  backend.upload(lane.as<int32_t>() + 1, &length, 4, d.stream);
  d.cache.compact(table.as<int32_t>(), static_cast<int64_t>(s.blocks().size()), lane.as<int32_t>(),
                  {nodes.as<int32_t>(), lane.as<int32_t>() + 1, 1, count});
  return info.Env().Undefined();
}

Napi::Value free_blocks(Driver& d, const Info& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(d.cache.free_blocks()));
}

// kvCache(level, {layers, kvHeads, headDim, blocks})
Napi::Value kv_cache(const Info& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    const auto p = info[1].As<Napi::Object>();
    const std::string level = info[0].As<Napi::String>().Utf8Value();
    const Backend& backend = level_backend(level);
    const KvShape shape(integer(p.Get("layers")), integer(p.Get("kvHeads")), integer(p.Get("headDim")),
                        integer(p.Get("blocks")), backend, DType::kBF16);
    const auto driver = std::make_shared<Driver>(shape, backend);
    auto object = Napi::Object::New(env);
    using Method = Napi::Value (*)(Driver&, const Info&);
    const auto add = [&](const char* name, Method method) {
      object[name] = Napi::Function::New(env, [driver, method](const Info& call) -> Napi::Value {
        return guarded(call.Env(), [&]() -> Napi::Value { return method(*driver, call); });
      });
    };
    add("open", open);
    add("close", close);
    add("length", length);
    add("blocks", blocks);
    add("blocksNeeded", blocks_needed);
    add("reserve", reserve);
    add("commit", commit);
    add("truncate", truncate);
    add("fork", fork);
    add("write", write);
    add("read", read);
    add("compact", compact);
    add("freeBlocks", free_blocks);
    object["slotFloats"] = static_cast<double>(driver->slot_floats());
    return object;
  });
}

}  // namespace

void add_kv_driver(Napi::Object ops) { ops["kvCache"] = Napi::Function::New(ops.Env(), kv_cache); }

}  // namespace redrafter::testing
