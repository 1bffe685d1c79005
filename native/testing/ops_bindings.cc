// native/ops as an object `ops` for the tests; this file: the ops of a forward pass without the cache, and of
// choosing tokens.
#include <cmath>

#include "model/weights.h"
#include "testing/levels.h"
#include "testing/op_call.h"

namespace redrafter::testing {
namespace {

// levels(): the levels of the CPU backend that run here
Napi::Value levels(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    auto names = Napi::Array::New(info.Env());
    for (const char* name : {"oracle", "base", "avx2", "avx512", "avx512vnni"}) {
      try {
        names[names.Length()] = Napi::String::New(info.Env(), find_backend(std::string("cpu:") + name).level);
      } catch (const Error&) {  // not on this processor
      }
    }
    return names;
  });
}

// missing(level): why it cannot run here, or null
Napi::Value missing(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    try {
      level_backend(info[0].As<Napi::String>());
      return info.Env().Null();
    } catch (const Error& error) {
      return Napi::String::New(info.Env(), error.what());
    }
  });
}

// limitWorkspace(bytes or null)
Napi::Value limit_workspace(const Napi::CallbackInfo& info) {
  std::optional<int64_t> bytes;
  if (info[0].IsNumber()) bytes = info[0].As<Napi::Number>().Int64Value();
  set_workspace_limit(bytes);
  return info.Env().Undefined();
}

// convert(bytes, from, to): the elements in another dtype, and the index of the first that overflows or -1
Napi::Value convert(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto bytes = info[0].As<Napi::Uint8Array>();
    const DType from = parse_matrix_dtype(info[1].As<Napi::String>()).value();
    const DType to = parse_matrix_dtype(info[2].As<Napi::String>()).value();
    const size_t count = bytes.ElementLength() / dtype_bytes(from);
    auto out = Napi::Uint8Array::New(info.Env(), count * dtype_bytes(to));
    Napi::Object result = Napi::Object::New(info.Env());
    const int64_t overflow =
        convert_elements(bytes.Data(), from, out.Data(), to, static_cast<int64_t>(count));
    result.Set("overflow", static_cast<double>(overflow));
    result.Set("bytes", out);
    return result;
  });
}

// pack {w}: the packed bytes
Napi::Value pack(OpCall& call) {
  const Matrix w = call.params().matrix("w");
  return call.take(static_cast<const uint8_t*>(w.data));
}

// embed {table, token}
Napi::Value embed(OpCall& call) {
  const Fields& p = call.params();
  const Matrix table = p.matrix("table");
  const int64_t rows = p.length<int32_t>("token");
  float* y = call.out<float>(rows * table.cols);
  call.backend().embed({p.indices("token", rows, 0, table.rows), table, y, rows}, call.stream());
  return call.take(y);
}

// norm {x, weight, gather?, rows, groups, dim, eps, xStride?, yStride?, inPlace?}
Napi::Value norm(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.integer("rows"), groups = p.integer("groups"), dim = p.integer("dim");
  const int64_t x_stride = p.has("xStride") ? p.integer("xStride") : groups * dim;
  const int64_t y_stride = p.has("yStride") ? p.integer("yStride") : groups * dim;
  const int64_t x_rows = x_stride == 0 ? 0 : p.length<float>("x") / x_stride;
  REDRAFTER_REQUIRE(x_stride >= groups * dim && y_stride >= groups * dim, "ERR_INVALID_ARGUMENT", "stride");
  REDRAFTER_REQUIRE(p.has("gather") || x_rows >= rows, "ERR_INVALID_ARGUMENT", "too few rows");
  float* x = p.in<float>("x", x_rows * x_stride);
  REDRAFTER_REQUIRE(!p.flag("inPlace") || (x_stride == y_stride && x_rows == rows && !p.has("gather")),
                    "ERR_INVALID_ARGUMENT", "in place");
  float* y = p.flag("inPlace") ? x : call.out<float>(rows * y_stride);
  const int32_t* gather = p.has("gather") ? p.indices("gather", rows, 0, x_rows) : nullptr;
  call.backend().norm({x, y, p.in<float>("weight", dim), gather, x_stride, y_stride, rows, groups, dim,
                       static_cast<float>(p.number("eps"))},
                      call.stream());
  return call.take(y);
}

// matmul {x, w, rows, bias?, residual?, xStride?, yStride?, residualInPlace?}
Napi::Value matmul(OpCall& call) {
  const Fields& p = call.params();
  const Matrix w = p.matrix("w");
  const int64_t rows = p.integer("rows");
  const int64_t x_stride = p.has("xStride") ? p.integer("xStride") : w.cols;
  const int64_t y_stride = p.has("yStride") ? p.integer("yStride") : w.rows;
  REDRAFTER_REQUIRE(x_stride >= w.cols && y_stride >= w.rows, "ERR_INVALID_ARGUMENT", "stride");
  const float* x = p.in<float>("x", rows * x_stride);
  const float* bias = p.optional<float>("bias", w.rows);
  float* residual = p.optional<float>("residual", rows * y_stride);
  float* y = p.flag("residualInPlace") && residual != nullptr ? residual : call.out<float>(rows * y_stride);
  call.backend().matmul({x, w, bias, residual, y, rows, x_stride, y_stride, call.room(w, rows)},
                        call.stream());
  return call.take(y);
}

// act {gateUp, rows, dim}
Napi::Value act(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.integer("rows"), dim = p.integer("dim");
  float* y = call.out<float>(rows * dim);
  call.backend().act({p.in<float>("gateUp", rows * 2 * dim), y, rows, dim}, call.stream());
  return call.take(y);
}

float finite(const char* key, float value) {
  REDRAFTER_REQUIRE(std::isfinite(value), "ERR_INVALID_ARGUMENT", key, " is not finite");
  return value;
}

// The lanes of adjust: `repetition`, `presence`, `frequency`, `endingDepth`, `entries` (how many) and `keeps`
// by lane.
std::vector<AdjustLane> adjust_lanes(const Fields& p, int64_t lanes) {
  const float *repetition = p.host<float>("repetition", lanes), *presence = p.host<float>("presence", lanes),
              *frequency = p.host<float>("frequency", lanes);
  const int32_t *depth = p.host<int32_t>("endingDepth", lanes), *entries = p.host<int32_t>("entries", lanes),
                *keeps = p.host<int32_t>("keeps", lanes), *begin = p.host<int32_t>("begin", lanes + 1);
  std::vector<AdjustLane> list;
  int64_t first = 0, saved = 0;
  for (int64_t l = 0; l < lanes; ++l) {
    REDRAFTER_REQUIRE(entries[l] >= 0 && begin[l + 1] >= begin[l], "ERR_INVALID_ARGUMENT", "lane ", l);
    list.push_back({repetition[l], presence[l], frequency[l], depth[l], entries[l], first, -1});
    first += entries[l];
    if (keeps[l] == 0) continue;
    list.back().saved = saved;
    saved += (begin[l + 1] - begin[l]) * adjust_saved(entries[l]);
  }
  return list;
}

// adjust {logits, vocab, nodeToken, nodeParent, begin, the lanes above, and all entries: id, generated, bias,
// flags}: {adjusted, undone}
Napi::Value adjust(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.length<int32_t>("nodeToken"), vocab = p.integer("vocab");
  const int64_t lanes = p.length<int32_t>("begin") - 1, count = p.length<int32_t>("id");
  REDRAFTER_REQUIRE(lanes > 0 && vocab > 0, "ERR_INVALID_ARGUMENT", "begin or vocab");
  const std::vector<AdjustLane> list = adjust_lanes(p, lanes);
  REDRAFTER_REQUIRE(list.back().first_entry + list.back().entries == count, "ERR_INVALID_ARGUMENT",
                    "entries");
  const int32_t *id = p.host<int32_t>("id", count), *generated = p.host<int32_t>("generated", count),
                *flags = p.host<int32_t>("flags", count);
  const float* bias = p.host<float>("bias", count);
  std::vector<AdjustEntry> all;
  for (int64_t i = 0; i < count; ++i) {
    REDRAFTER_REQUIRE(id[i] >= 0 && id[i] < vocab, "ERR_INVALID_ARGUMENT", "id");
    all.push_back({id[i], generated[i], bias[i], static_cast<uint32_t>(flags[i])});
  }
  auto* lane = call.out<AdjustLane>(lanes);
  call.upload(lane, list.data(), list.size() * sizeof(AdjustLane));
  auto* entries = call.out<AdjustEntry>(count);
  call.upload(entries, all.data(), all.size() * sizeof(AdjustEntry));
  float* logits = p.in<float>("logits", rows * vocab);
  const AdjustParams params{logits,
                            lane,
                            entries,
                            p.indices("nodeToken", rows, 0, vocab),
                            p.indices("nodeParent", rows, -1, rows),
                            p.indices("begin", lanes + 1, 0, rows + 1),
                            call.scratch(rows * adjust_saved(count)),
                            lanes,
                            rows,
                            vocab};
  call.backend().adjust(params, call.stream());
  auto result = Napi::Object::New(call.env());
  result["adjusted"] = call.take(logits);
  call.backend().adjust_undo(params, call.stream());
  result["undone"] = call.take(logits);
  return result;
}

// sample {logits, vocab, temperature, topK, topP, minP, seed, position, nodeToken?, nodeParent?, begin?,
// mask?, maskIndex?}: arrays with one entry per row, but for begin, with one per lane and one more, and mask,
// with the words of each mask
Napi::Value sample(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.length<int32_t>("position"), vocab = p.integer("vocab");
  REDRAFTER_REQUIRE(vocab > 0, "ERR_INVALID_ARGUMENT", "vocab");
  std::vector<float> temperature(static_cast<size_t>(rows)), top_p(temperature), min_p(temperature);
  std::vector<int32_t> top_k(static_cast<size_t>(rows));
  std::vector<uint64_t> seed(static_cast<size_t>(rows));
  const auto host = [&](auto* to, auto* from) {
    call.download(to, from, static_cast<size_t>(rows) * sizeof *to);
  };
  host(temperature.data(), p.in<float>("temperature", rows));
  host(top_k.data(), p.indices("topK", rows, 0, int64_t{1} << 31));
  host(top_p.data(), p.in<float>("topP", rows));
  host(min_p.data(), p.in<float>("minP", rows));
  host(seed.data(), p.in<uint64_t>("seed", rows));
  std::vector<SampleSpec> specs;
  for (size_t i = 0; i < static_cast<size_t>(rows); ++i) {
    specs.push_back({finite("temperature", temperature[i]), top_k[i], finite("topP", top_p[i]),
                     finite("minP", min_p[i]), seed[i]});
  }
  auto* spec = call.out<SampleSpec>(rows);
  call.upload(spec, specs.data(), specs.size() * sizeof(SampleSpec));
  int32_t* token = call.out<int32_t>(rows);
  SampleParams params{p.in<float>("logits", rows * vocab),
                      spec,
                      p.indices("position", rows, 0, int64_t{1} << 31),
                      token,
                      call.out<uint8_t>(call.threads() * sample_scratch(vocab)),
                      rows,
                      vocab};
  if (p.has("nodeParent")) {
    params.node_token = p.in<int32_t>("nodeToken", rows);
    params.node_parent = p.indices("nodeParent", rows, -1, rows);
    params.begin = p.indices("begin", p.length<int32_t>("begin"), 0, rows + 1);
    params.lanes = p.length<int32_t>("begin") - 1;
  }
  if (p.has("mask")) {
    const int64_t masks = p.length<int32_t>("mask") / mask_words(vocab);
    params.mask = reinterpret_cast<const uint32_t*>(p.in<int32_t>("mask", masks * mask_words(vocab)));
    params.mask_index = p.indices("maskIndex", rows, -1, masks);
  }
  call.backend().sample(params, call.stream());
  return call.take(token);
}

// logprob {logits, vocab, row, token, topK}: {logprob, topToken, topLogprob}
Napi::Value logprob(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.length<int32_t>("row"), vocab = p.integer("vocab"), top_k = p.integer("topK");
  REDRAFTER_REQUIRE(vocab > 0, "ERR_INVALID_ARGUMENT", "vocab");
  const int64_t logit_rows = p.length<float>("logits") / vocab;
  float *value = call.out<float>(rows), *top_value = call.out<float>(rows * top_k);
  int32_t* top_token = call.out<int32_t>(rows * top_k);
  call.backend().logprob(
      {p.in<float>("logits", logit_rows * vocab), p.indices("row", rows, 0, logit_rows),
       p.indices("token", rows, 0, vocab), value, top_token, top_value, rows, vocab, top_k},
      call.stream());
  auto result = Napi::Object::New(call.env());
  result["logprob"] = call.take(value);
  result["topToken"] = call.take(top_token);
  result["topLogprob"] = call.take(top_value);
  return result;
}

}  // namespace

void add_row_ops(Napi::Object ops) {
  ops["convert"] = Napi::Function::New(ops.Env(), convert);
  ops["limitWorkspace"] = Napi::Function::New(ops.Env(), limit_workspace);
  ops["missing"] = Napi::Function::New(ops.Env(), missing);
  ops["levels"] = Napi::Function::New(ops.Env(), levels);
  add_op<pack>(ops, "pack");
  add_op<embed>(ops, "embed");
  add_op<norm>(ops, "norm");
  add_op<matmul>(ops, "matmul");
  add_op<act>(ops, "act");
  add_op<adjust>(ops, "adjust");
  add_op<sample>(ops, "sample");
  add_op<logprob>(ops, "logprob");
}

void add_ops(Napi::Env env, Napi::Object exports) {
  auto ops = Napi::Object::New(env);
  add_row_ops(ops);
  add_kv_ops(ops);
  add_drafter_ops(ops);
  add_tree_ops(ops);
  add_host_functions(ops);
  add_kv_driver(ops);
  exports["ops"] = ops;
}

}  // namespace redrafter::testing
