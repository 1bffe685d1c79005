// A drafter on its own: the log-probabilities of its steps, and the trees it proposes.
#include <algorithm>
#include <limits>

#include "base/threads.h"
#include "spec/drafters/recurrent.h"
#include "testing/testing.h"

namespace redrafter::testing {
namespace {

bool keep_going(uint64_t) { return true; }

// A drafter directory loaded beside the target it belongs to. Arguments of every binding: level, target
// directory, drafter directory, hidden state.
struct Loaded {
  ThreadPool pool{1};
  Stream stream;
  const Backend& backend;
  ModelConfig target;
  ModelWeights weights;
  RecurrentDrafter drafter;
  std::vector<float> hidden;

  explicit Loaded(const Napi::CallbackInfo& info)
      : stream{&pool, nullptr},
        backend(find_backend("cpu:" + info[0].As<Napi::String>().Utf8Value())),
        target(read_model_config(info[1].As<Napi::String>())),
        weights(load_model_weights(target, Checkpoint::open(info[1].As<Napi::String>()), backend, stream,
                                   keep_going)),
        drafter(load_recurrent_weights(info[2].As<Napi::String>(), target, backend, stream, keep_going),
                weights.embedding, backend, stream) {
    const auto array = info[3].As<Napi::Float32Array>();
    REDRAFTER_REQUIRE(static_cast<int64_t>(array.ElementLength()) == target.hidden, "ERR_INVALID_ARGUMENT",
                      "hidden has the wrong length");
    hidden.assign(array.Data(), array.Data() + array.ElementLength());
  }
};

// One chain of tokens through the recurrence: the scratch of all steps and the head's output of the last one.
struct Chain {
  const RecurrentWeights& r;
  std::vector<float> state, next, z, z_next, cell_scratch, mix_scratch, head_scratch, logit;
  std::vector<int32_t> id;
  float log_sum_exp = 0.0f;

  explicit Chain(const RecurrentWeights& weights) : r(weights) {
    const size_t h = static_cast<size_t>(r.config.hidden), exit = static_cast<size_t>(r.config.exit);
    const size_t vocab = static_cast<size_t>(r.head.rows);
    for (auto* v : {&state, &next}) v->resize(h);
    for (auto* v : {&z, &z_next}) v->resize(exit);
    logit.resize(vocab);
    head_scratch.resize(static_cast<size_t>(head_top_scratch(r.head.rows)));
    cell_scratch.resize(7 * h);
    mix_scratch.resize(2 * h);
    id.resize(vocab);
  }

  void step(Loaded& loaded, int32_t token) {
    const Backend& b = loaded.backend;
    Stream& stream = loaded.stream;
    const int64_t h = r.config.hidden, exit = r.config.exit;
    b.cell({r.config.cell, nullptr, &token, loaded.weights.embedding, state.data(), next.data(), r.w, r.u,
            r.w_bias, r.u_bias, 1, h, cell_scratch.data()},
           stream);
    state.swap(next);
    b.mix({loaded.hidden.data(), state.data(), r.projection, r.projection_bias, z.data(), 1, h, exit,
           mix_scratch.data()},
          stream);
    for (const auto& block : r.blocks) {
      b.residual({z.data(), z_next.data(), block.a, block.bias, 1, exit}, stream);
      z.swap(z_next);
    }
    b.head_top({z.data(), r.head, 1, r.head.rows, id.data(), logit.data(), &log_sum_exp, head_scratch.data()},
               stream);
  }
};

// (..., tokens) -> { logprobs: [tokens, draft_vocab] after each token, by head row; ids: [draft_vocab] target
// id of each head row }
Napi::Value logprobs(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Loaded loaded(info);
    const auto tokens = info[4].As<Napi::Int32Array>();
    Chain chain(loaded.drafter.weights());
    const size_t vocab = chain.id.size();
    auto out = Napi::Float32Array::New(info.Env(), tokens.ElementLength() * vocab);
    for (size_t t = 0; t < tokens.ElementLength(); ++t) {
      REDRAFTER_REQUIRE(tokens[t] >= 0 && tokens[t] < loaded.target.vocab, "ERR_INVALID_ARGUMENT",
                        "token out of range");
      chain.step(loaded, tokens[t]);
      for (size_t i = 0; i < vocab; ++i) {
        const int32_t row = chain.id[i];
        if (row >= 0) out[t * vocab + static_cast<size_t>(row)] = chain.logit[i] - chain.log_sum_exp;
      }
    }
    auto ids = Napi::Int32Array::New(info.Env(), vocab);
    const int32_t* map = loaded.drafter.weights().id_map;
    for (size_t i = 0; i < vocab; ++i) ids[i] = map == nullptr ? static_cast<int32_t>(i) : map[i];
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("logprobs", out);
    result.Set("ids", ids);
    return result;
  });
}

// (..., root, width, length, budget?, least?) -> { token, parent, depth } of the tree
Napi::Value propose(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Loaded loaded(info);
    const int64_t width = info[5].As<Napi::Number>().Int64Value(),
                  length = info[6].As<Napi::Number>().Int64Value();
    REDRAFTER_REQUIRE(width >= 1 && width <= kMaxBeamWidth && length >= 1 && length <= kMaxBeamLength,
                      "ERR_INVALID_ARGUMENT", "beam shape out of range");
    const int64_t all = max_tree_nodes(width, length);
    const int64_t budget = info[7].IsNumber() ? info[7].As<Napi::Number>().Int64Value() : all;
    const float least = info[8].IsNumber() ? info[8].As<Napi::Number>().FloatValue()
                                           : -std::numeric_limits<float>::infinity();
    REDRAFTER_REQUIRE(budget >= 1 && budget <= all, "ERR_INVALID_ARGUMENT", "budget out of range");
    const size_t most = static_cast<size_t>(budget);
    std::vector<int32_t> token(most), parent(most), depth(most);
    const int32_t root = info[4].As<Napi::Number>().Int32Value(), hidden_row = 0;
    int32_t nodes = 0;
    loaded.drafter.propose({loaded.hidden.data(), &hidden_row, &root, 1, width, length, budget, least},
                           {token.data(), parent.data(), depth.data(), &nodes});
    Napi::Object result = Napi::Object::New(info.Env());
    const auto set = [&](const char* key, const std::vector<int32_t>& values) {
      auto array = Napi::Int32Array::New(info.Env(), static_cast<size_t>(nodes));
      std::copy(values.begin(), values.begin() + nodes, array.Data());
      result.Set(key, array);
    };
    set("token", token);
    set("parent", parent);
    set("depth", depth);
    return result;
  });
}

}  // namespace

void add_drafter(Napi::Env env, Napi::Object exports) {
  Napi::Object drafter = Napi::Object::New(env);
  drafter.Set("logprobs", Napi::Function::New(env, logprobs, "logprobs"));
  drafter.Set("propose", Napi::Function::New(env, propose, "propose"));
  exports.Set("drafter", drafter);
}

}  // namespace redrafter::testing
