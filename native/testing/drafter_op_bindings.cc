// The drafter's ops, beam search, and the plain functions beside them.
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

// cell {cell, e or token and table, tokenStride?, s, w?, u?, wBias?, uBias?, rows, hidden}; with a table and
// no w, the table is folded
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
  const int64_t stride = p.has("tokenStride") ? p.integer("tokenStride") : 1;
  if (looked_up) {
    table = p.matrix("table");
    REDRAFTER_REQUIRE(table.cols == (folded ? gates : h), "ERR_INVALID_ARGUMENT",
                      "table has the wrong shape");
    token = p.indices("token", (rows - 1) * stride + 1, 0, table.rows);
  }
  float* next = call.out<float>(rows * h);
  const Matrix u = optional_matrix(p, "u", gates, h);
  call.backend().cell({kind, p.optional<float>("e", rows * h), token, table, p.in<float>("s", rows * h), next,
                       optional_matrix(p, "w", gates, h), u, p.optional<float>("wBias", gates),
                       p.optional<float>("uBias", gates), rows, h, call.scratch(rows * 7 * h), stride,
                       call.room(u, 2 * rows)},
                      call.stream());
  return call.take(next);
}

// mix {h, s, projection?, bias?, rows, hidden, exit, hRow?, rowsPerLane?}; without hRow, h is one row
Napi::Value mix(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.integer("rows"), h = p.integer("hidden"), exit = p.integer("exit");
  const Matrix projection = optional_matrix(p, "projection", exit, 2 * h);
  REDRAFTER_REQUIRE(projection.data != nullptr || exit == 2 * h, "ERR_INVALID_ARGUMENT", "exit");
  int64_t h_rows = 1, rows_per_lane = 1;
  const int32_t* h_row = nullptr;
  if (p.has("hRow")) {
    h_rows = p.length<float>("h") / h;
    rows_per_lane = p.integer("rowsPerLane");
    REDRAFTER_REQUIRE(rows_per_lane > 0 && rows % rows_per_lane == 0, "ERR_INVALID_ARGUMENT", "rowsPerLane");
    h_row = p.indices("hRow", rows / rows_per_lane, 0, h_rows);
  }
  float* z = call.out<float>(rows * exit);
  call.backend().mix(
      {p.in<float>("h", h_rows * h), p.in<float>("s", rows * h), projection, p.optional<float>("bias", exit),
       z, rows, h, exit, call.scratch(rows * 2 * h), h_row, rows_per_lane, call.room(projection, rows)},
      call.stream());
  return call.take(z);
}

// residual {z, a, bias?, rows, exit}
Napi::Value residual(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.integer("rows"), exit = p.integer("exit");
  REDRAFTER_REQUIRE(p.has("a"), "ERR_INVALID_ARGUMENT", "a is missing");
  float* next = call.out<float>(rows * exit);
  const Matrix a = optional_matrix(p, "a", exit, exit);
  call.backend().residual({p.in<float>("z", rows * exit), next, a, p.optional<float>("bias", exit), rows,
                           exit, call.room(a, rows)},
                          call.stream());
  return call.take(next);
}

// headTop {z, head, rows, top, mask?, maskIndex?, maskWords?, idMap?}: {token, logit, logSumExp}
Napi::Value head_top(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.integer("rows"), top = p.integer("top");
  REDRAFTER_REQUIRE(top > 0, "ERR_INVALID_ARGUMENT", "top");
  const Matrix head = p.matrix("head");
  int32_t* token = call.out<int32_t>(rows * top);
  float *logit = call.out<float>(rows * top), *sum = call.out<float>(rows);
  HeadTopParams params{p.in<float>("z", rows * head.cols),
                       head,
                       rows,
                       top,
                       token,
                       logit,
                       sum,
                       call.scratch(rows * head_top_scratch(head.rows)),
                       call.room(head, rows)};
  if (p.has("mask")) {
    params.mask_words = p.integer("maskWords");
    const int64_t words = p.length<int32_t>("mask"), masked = p.length<int32_t>("maskIndex");
    REDRAFTER_REQUIRE(params.mask_words > 0 && masked > 0 && rows % masked == 0, "ERR_INVALID_ARGUMENT",
                      "mask");
    params.mask = reinterpret_cast<const uint32_t*>(p.in<int32_t>("mask", words));
    params.mask_index = p.indices("maskIndex", masked, -1, words / params.mask_words);
    params.mask_rows = rows / masked;
    if (p.has("idMap")) params.id_map = p.indices("idMap", head.rows, 0, 32 * params.mask_words);
  }
  call.backend().head_top(params, call.stream());
  auto result = Napi::Object::New(call.env());
  result["token"] = call.take(token);
  result["logit"] = call.take(logit);
  result["logSumExp"] = call.take(sum);
  return result;
}

// beamStart {root, columns, hidden}: {scores, beams, state} of a lane for each root
Napi::Value beam_start(OpCall& call) {
  const Fields& p = call.params();
  const int64_t lanes = p.length<int32_t>("root"), columns = p.integer("columns"),
                hidden = p.integer("hidden");
  REDRAFTER_REQUIRE(lanes > 0 && columns > 0, "ERR_INVALID_ARGUMENT", "root or columns");
  float *scores = call.out<float>(lanes * columns), *state = call.out<float>(lanes * hidden);
  int32_t* beams = call.out<int32_t>(lanes * columns);
  call.backend().beam_start({p.in<int32_t>("root", lanes), lanes, columns, hidden, scores, beams, state},
                            call.stream());
  auto result = Napi::Object::New(call.env());
  result["scores"] = call.take(scores);
  result["beams"] = call.take(beams);
  result["state"] = call.take(state);
  return result;
}

// beam {token, logit, logSumExp, idMap?, scores, beams, state, lanes?, rows, width, columns, step, hidden}:
// {scores, beams, state, live}; one lane when `lanes` is missing
Napi::Value beam(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.integer("rows"), width = p.integer("width"), columns = p.integer("columns");
  const int64_t step = p.integer("step"), hidden = p.integer("hidden");
  const int64_t lanes = p.has("lanes") ? p.integer("lanes") : 1, all = lanes * rows, kept = lanes * width;
  REDRAFTER_REQUIRE(lanes > 0 && rows > 0 && width > 0 && step > 0 && step < columns, "ERR_INVALID_ARGUMENT",
                    "step");
  const int64_t ids = p.has("idMap") ? p.length<int32_t>("idMap") : int64_t{1} << 31;
  float *scores = call.out<float>(kept * columns), *state = call.out<float>(kept * hidden);
  int32_t *beams = call.out<int32_t>(kept * columns), *live = call.out<int32_t>(lanes);
  call.backend().beam({p.indices("token", all * width, -1, ids), p.in<float>("logit", all * width),
                       p.in<float>("logSumExp", all), p.has("idMap") ? p.in<int32_t>("idMap", ids) : nullptr,
                       p.in<float>("scores", all * columns), p.in<int32_t>("beams", all * columns),
                       p.in<float>("state", all * hidden), rows, width, columns, step, hidden, scores, beams,
                       state, live, call.scratch(lanes * (rows + 2) * width), lanes},
                      call.stream());
  auto result = Napi::Object::New(call.env());
  result["scores"] = call.take(scores);
  result["beams"] = call.take(beams);
  result["state"] = call.take(state);
  result["live"] = call.take(live);
  return result;
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
  add_op<beam_start>(ops, "beamStart");
  add_op<beam>(ops, "beam");
}

void add_host_functions(Napi::Object ops) {
  ops["philox4x32"] = Napi::Function::New(ops.Env(), philox_block);
  ops["philoxUniform"] = Napi::Function::New(ops.Env(), uniform);
  ops["cutRun"] = Napi::Function::New(ops.Env(), cut);
  add_op<make_rope_table>(ops, "ropeTable");
}

}  // namespace redrafter::testing
