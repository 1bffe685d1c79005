// The drafter's ops, the draft tree, and the plain functions beside them.
#include <algorithm>

#include "base/philox.h"
#include "model/rope_table.h"
#include "spec/accept.h"
#include "testing/op_call.h"

namespace redrafter::testing {
namespace {

Matrix optional_matrix(const Fields& p, const char* key, int64_t rows, int64_t cols) {
  if (!p.has(key)) return {};
  const Matrix w = p.matrix(key);
  REDRAFTER_REQUIRE(w.rows == rows && w.cols == cols, "ERR_INVALID_ARGUMENT", key, " has the wrong shape");
  return w;
}

Cell cell_named(const std::string& name) {
  for (const Cell kind : {Cell::kSum, Cell::kElman, Cell::kGru}) {
    if (name == cell_name(kind)) return kind;
  }
  fail("ERR_INVALID_ARGUMENT", "unknown cell ", name);
}

// cell {cell, e or token and table, s, w?, u?, wBias?, uBias?, rows, hidden}; with a table and no w, the
// table is folded
Napi::Value cell(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.integer("rows"), h = p.integer("hidden");
  const Cell kind = cell_named(p.text("cell"));
  const int64_t gates = kind == Cell::kGru ? 3 * h : h;
  const bool looked_up = !p.has("e"), folded = looked_up && kind != Cell::kSum && !p.has("w");
  REDRAFTER_REQUIRE(kind == Cell::kSum || ((p.has("w") || folded) && p.has("u")), "ERR_INVALID_ARGUMENT",
                    "w or u is missing");
  Matrix table;
  const int32_t* token = nullptr;
  if (looked_up) {
    table = p.matrix("table");
    REDRAFTER_REQUIRE(table.cols == (folded ? gates : h), "ERR_INVALID_ARGUMENT",
                      "table has the wrong shape");
    token = p.indices("token", rows, 0, table.rows);
  }
  float* next = call.out<float>(rows * h);
  call.backend().cell({kind, p.optional<float>("e", rows * h), token, table, p.in<float>("s", rows * h), next,
                       optional_matrix(p, "w", gates, h), optional_matrix(p, "u", gates, h),
                       p.optional<float>("wBias", gates), p.optional<float>("uBias", gates), rows, h,
                       call.scratch(rows * 7 * h)},
                      call.stream());
  return call.take(next);
}

// mix {h, s, projection?, bias?, rows, hidden, exit}
Napi::Value mix(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.integer("rows"), h = p.integer("hidden"), exit = p.integer("exit");
  const Matrix projection = optional_matrix(p, "projection", exit, 2 * h);
  REDRAFTER_REQUIRE(projection.data != nullptr || exit == 2 * h, "ERR_INVALID_ARGUMENT", "exit");
  float* z = call.out<float>(rows * exit);
  call.backend().mix({p.in<float>("h", h), p.in<float>("s", rows * h), projection,
                      p.optional<float>("bias", exit), z, rows, h, exit, call.scratch(rows * 2 * h)},
                     call.stream());
  return call.take(z);
}

// residual {z, a, bias?, rows, exit}
Napi::Value residual(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.integer("rows"), exit = p.integer("exit");
  REDRAFTER_REQUIRE(p.has("a"), "ERR_INVALID_ARGUMENT", "a is missing");
  float* next = call.out<float>(rows * exit);
  call.backend().residual({p.in<float>("z", rows * exit), next, optional_matrix(p, "a", exit, exit),
                           p.optional<float>("bias", exit), rows, exit},
                          call.stream());
  return call.take(next);
}

// headTop {z, head, rows, top}: {token, logit, logSumExp}
Napi::Value head_top(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.integer("rows"), top = p.integer("top");
  REDRAFTER_REQUIRE(top > 0, "ERR_INVALID_ARGUMENT", "top");
  const Matrix head = p.matrix("head");
  int32_t* token = call.out<int32_t>(rows * top);
  float *logit = call.out<float>(rows * top), *sum = call.out<float>(rows);
  call.backend().head_top({p.in<float>("z", rows * head.cols), head, rows, top, token, logit, sum,
                           call.scratch(rows * head_top_scratch(head.rows))},
                          call.stream());
  auto result = Napi::Object::New(call.env());
  result["token"] = call.take(token);
  result["logit"] = call.take(logit);
  result["logSumExp"] = call.take(sum);
  return result;
}

// beam {token, logit, logSumExp, idMap?, score, beams, state, rows, width, columns, step, hidden}:
// {score, beams, state, live}
Napi::Value beam(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.integer("rows"), width = p.integer("width"), columns = p.integer("columns");
  const int64_t step = p.integer("step"), hidden = p.integer("hidden");
  REDRAFTER_REQUIRE(rows > 0 && width > 0 && step < columns, "ERR_INVALID_ARGUMENT", "step");
  const int64_t ids = p.has("idMap") ? p.length<int32_t>("idMap") : int64_t{1} << 31;
  float *score = call.out<float>(width), *state = call.out<float>(width * hidden);
  int32_t *beams = call.out<int32_t>(width * columns), *live = call.out<int32_t>(1);
  call.backend().beam({p.indices("token", rows * width, -1, ids), p.in<float>("logit", rows * width),
                       p.in<float>("logSumExp", rows), p.has("idMap") ? p.in<int32_t>("idMap", ids) : nullptr,
                       p.in<float>("score", rows), p.in<int32_t>("beams", rows * columns),
                       p.in<float>("state", rows * hidden), rows, width, columns, step, hidden, score, beams,
                       state, live, call.scratch(rows * width + 2 * width)},
                      call.stream());
  auto result = Napi::Object::New(call.env());
  result["score"] = call.take(score);
  result["beams"] = call.take(beams);
  result["state"] = call.take(state);
  result["live"] = call.take(live)[0];
  return result;
}

// treePack {beams, width, length}: {token, parent, depth, unpack}, the first three cut to the nodes made
Napi::Value tree_pack(OpCall& call) {
  const Fields& p = call.params();
  const int64_t width = p.integer("width"), length = p.integer("length"), most = 1 + width * length;
  REDRAFTER_REQUIRE(width > 0, "ERR_INVALID_ARGUMENT", "width");
  const int32_t* given = p.host<int32_t>("beams", width * (length + 1));
  for (int64_t row = 1; row < width; ++row) {
    REDRAFTER_REQUIRE(given[row * (length + 1)] == given[0], "ERR_INVALID_ARGUMENT",
                      "the rows have no common root");
  }
  const int32_t* beams = p.in<int32_t>("beams", width * (length + 1));
  int32_t *token = call.out<int32_t>(most), *parent = call.out<int32_t>(most),
          *depth = call.out<int32_t>(most);
  int32_t *unpack = call.out<int32_t>(width * (length + 1)), *nodes = call.out<int32_t>(1);
  const int32_t live = static_cast<int32_t>(width);
  int32_t *live_rows = call.out<int32_t>(1), *root = call.out<int32_t>(1);
  call.upload(live_rows, &live, sizeof live);
  call.upload(root, given, sizeof *given);
  call.backend().tree_pack({beams, root, live_rows, 1, width, length, token, parent, depth, unpack, nodes},
                           call.stream());
  const int32_t made = call.take(nodes)[0];
  REDRAFTER_REQUIRE(made >= 0 && made <= most, "ERR_INTERNAL", "tree_pack made ", made, " nodes");
  auto result = Napi::Object::New(call.env());
  const auto cut = [&](int32_t* from) {
    auto array = Napi::Int32Array::New(call.env(), static_cast<size_t>(made));
    call.download(array.Data(), from, array.ByteLength());
    return array;
  };
  result["token"] = cut(token);
  result["parent"] = cut(parent);
  result["depth"] = cut(depth);
  result["unpack"] = call.take(unpack);
  return result;
}

// treeAccept {token, parent, chosen}: the path
Napi::Value tree_accept(OpCall& call) {
  const Fields& p = call.params();
  const int64_t nodes = p.length<int32_t>("token");
  REDRAFTER_REQUIRE(nodes > 0, "ERR_INVALID_ARGUMENT", "no nodes");
  int32_t *path = call.out<int32_t>(nodes), *emitted = call.out<int32_t>(nodes),
          *length = call.out<int32_t>(1);
  int32_t* begin = call.out<int32_t>(2);
  const int32_t begins[] = {0, static_cast<int32_t>(nodes)};
  call.upload(begin, begins, sizeof begins);
  call.backend().tree_accept({p.in<int32_t>("token", nodes), p.indices("parent", nodes, -1, nodes),
                              p.in<int32_t>("chosen", nodes), begin, 1, nodes, path, emitted, length},
                             call.stream());
  const int32_t walked = call.take(length)[0];
  REDRAFTER_REQUIRE(walked >= 0 && walked <= nodes, "ERR_INTERNAL", "tree_accept walked ", walked, " nodes");
  auto array = Napi::Int32Array::New(call.env(), static_cast<size_t>(walked));
  call.download(array.Data(), path, array.ByteLength());
  return array;
}

// philox4x32(counter, key)
Napi::Value philox_block(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto counter = info[0].As<Napi::Uint32Array>(), key = info[1].As<Napi::Uint32Array>();
    REDRAFTER_REQUIRE(counter.ElementLength() == 4 && key.ElementLength() == 2, "ERR_INVALID_ARGUMENT",
                      "length");
    const auto block = philox4x32_10({counter[0], counter[1], counter[2], counter[3]}, {key[0], key[1]});
    auto result = Napi::Uint32Array::New(info.Env(), 4);
    std::copy(block.begin(), block.end(), result.Data());
    return result;
  });
}

// philoxUniform(seed, position, choice), the first two bigints
Napi::Value uniform(const Napi::CallbackInfo& info) {
  bool lossless = false;
  const uint64_t seed = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
  const uint64_t position = info[1].As<Napi::BigInt>().Uint64Value(&lossless);
  const uint32_t choice = info[2].As<Napi::Number>().Uint32Value();
  return Napi::Number::New(info.Env(), philox_uniform(seed, position, choice, DrawPurpose::kToken));
}

std::vector<int32_t> ids_of(const Napi::Value& value) {
  const auto array = value.As<Napi::Int32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

// cutRun(run, remaining, eos, stop): {keep, finish}
Napi::Value cut(const Napi::CallbackInfo& info) {
  constexpr const char* kNames[] = {"none", "eos", "stop", "length", "abort"};
  const StopRules rules{ids_of(info[2]), ids_of(info[3])};
  const Cut at = cut_run(ids_of(info[0]), info[1].As<Napi::Number>().Int64Value(), rules);
  auto result = Napi::Object::New(info.Env());
  result["keep"] = static_cast<double>(at.keep);
  result["finish"] = kNames[static_cast<size_t>(at.finish)];
  return result;
}

// ropeTable {theta, scaling, factor?, ..., headDim, positions}; the level and thread arguments are not used
Napi::Value make_rope_table(OpCall& call) {
  const Fields& p = call.params();
  RopeConfig rope;
  const std::string scaling = p.text("scaling");
  for (int i = 0; const char* name : {"none", "linear", "llama3", "yarn"}) {
    if (scaling == name) rope.scaling = static_cast<RopeScaling>(i);
    ++i;
  }
  const auto set = [&](const char* key, double& field) { field = p.has(key) ? p.number(key) : field; };
  set("theta", rope.theta);
  set("factor", rope.factor);
  set("lowFreqFactor", rope.low_freq_factor);
  set("highFreqFactor", rope.high_freq_factor);
  set("betaFast", rope.beta_fast);
  set("betaSlow", rope.beta_slow);
  set("attentionFactor", rope.attention_factor);
  set("mscale", rope.mscale);
  set("mscaleAllDim", rope.mscale_all_dim);
  if (p.has("originalMaxPositions")) rope.original_max_positions = p.integer("originalMaxPositions");
  if (p.has("truncate")) rope.truncate = p.flag("truncate");
  const std::vector<float> table = rope_table(rope, p.integer("headDim"), p.integer("positions"));
  auto array = Napi::Float32Array::New(call.env(), table.size());
  std::copy(table.begin(), table.end(), array.Data());
  return array;
}

}  // namespace

void add_drafter_ops(Napi::Object ops) {
  add_op<cell>(ops, "cell");
  add_op<mix>(ops, "mix");
  add_op<residual>(ops, "residual");
  add_op<head_top>(ops, "headTop");
  add_op<beam>(ops, "beam");
  add_op<tree_pack>(ops, "treePack");
  add_op<tree_accept>(ops, "treeAccept");
}

void add_host_functions(Napi::Object ops) {
  ops["philox4x32"] = Napi::Function::New(ops.Env(), philox_block);
  ops["philoxUniform"] = Napi::Function::New(ops.Env(), uniform);
  ops["cutRun"] = Napi::Function::New(ops.Env(), cut);
  add_op<make_rope_table>(ops, "ropeTable");
}

}  // namespace redrafter::testing
