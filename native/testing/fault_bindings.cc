// The decode loop with one fault planted in it: what the lossless suite must be able to see; and what it asks
// of its backend.
#include <algorithm>
#include <vector>

#include "base/check.h"
#include "base/threads.h"
#include "ops/throwing.h"
#include "spec/drafters/recurrent.h"
#include "spec/round.h"
#include "testing/testing.h"

namespace redrafter::testing {
namespace {

const Backend& real() { return find_backend("cpu"); }

// K summed in two halves, but only when a launch has more than one row: an M-dependent split.
void split_k(const MatmulParams& p, Stream& stream) {
  if (p.rows == 1) return real().matmul(p, stream);
  const int64_t k = p.w.cols, n = p.w.rows;
  std::vector<float> half(static_cast<size_t>(p.rows * k)), part(static_cast<size_t>(p.rows * n));
  std::vector<float> sum(static_cast<size_t>(p.rows * n), 0.0f);
  for (const bool upper : {false, true}) {
    for (int64_t m = 0; m < p.rows; ++m) {
      for (int64_t i = 0; i < k; ++i)
        half[static_cast<size_t>(m * k + i)] = (i >= k / 2) == upper ? p.x[m * p.x_stride + i] : 0.0f;
    }
    real().matmul({half.data(), p.w, nullptr, nullptr, part.data(), p.rows, k, n}, stream);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
  }
  for (int64_t m = 0; m < p.rows; ++m) {
    for (int64_t i = 0; i < n; ++i) {
      const float bias = p.bias == nullptr ? 0.0f : p.bias[i];
      const float residual = p.residual == nullptr ? 0.0f : p.residual[m * p.y_stride + i];
      p.y[m * p.y_stride + i] = sum[static_cast<size_t>(m * n + i)] + bias + residual;
    }
  }
}

// Verification breaks ties by the highest id, plain decoding by the lowest.
void last_wins(const SampleParams& params, Stream& stream) {
  SampleParams p = params;
  p.begin = nullptr;  // choose everywhere: the walk will go where the fault leads
  real().sample(p, stream);
  for (int64_t row = 0; p.rows > 1 && row < p.rows; ++row) {
    const float* logits = p.logits + row * p.vocab;
    if (p.token[row] < 0) continue;
    for (int64_t i = 0; i < p.vocab; ++i) {
      if (logits[i] == logits[p.token[row]]) p.token[row] = static_cast<int32_t>(i);
    }
  }
}

// A node sees every node before it in the tree, not only its ancestors.
void no_sibling_mask(const AttentionParams& p, Stream& stream) {
  const int64_t rows = p.batch.rows;
  std::vector<int32_t> position(p.batch.position, p.batch.position + rows), begin(1, 0), tail;
  for (int64_t r = 0; r < rows; ++r) {
    if (p.batch.tail_begin[r + 1] > p.batch.tail_begin[r]) {
      for (int32_t slot = p.batch.context[r]; slot <= p.batch.slot[r]; ++slot) tail.push_back(slot);
      position[static_cast<size_t>(r)] = p.batch.slot[r];
    }
    begin.push_back(static_cast<int32_t>(tail.size()));
  }
  AttentionParams faulty = p;
  faulty.batch.position = position.data();
  faulty.batch.tail_begin = begin.data();
  faulty.batch.tail_slots = tail.data();
  real().attention(faulty, stream);
}

// Every node has the history of its root alone.
void no_ancestors(const AdjustParams& p, Stream& stream) {
  const std::vector<int32_t> none(static_cast<size_t>(p.rows), -1);
  AdjustParams faulty = p;
  faulty.node_parent = none.data();
  real().adjust(faulty, stream);
}

// A node has all nodes before it in its history, as far as there is room, not only its ancestors.
void siblings(const AdjustParams& p, Stream& stream) {
  std::vector<int32_t> parent(p.node_parent, p.node_parent + p.rows);
  for (int64_t lane = 0; lane < p.lanes; ++lane) {
    for (int32_t node = 1; node < p.begin[lane + 1] - p.begin[lane]; ++node) {
      parent[static_cast<size_t>(p.begin[lane] + node)] = node - 1;
    }
  }
  AdjustParams faulty = p;
  faulty.node_parent = parent.data();
  real().adjust(faulty, stream);
}

void no_compaction(const KvCompactParams&, Stream&) {}

Backend with_fault(const std::string& fault) {
  Backend backend = real();
  if (fault == "split-k") backend.matmul = split_k;
  if (fault == "last-wins") backend.sample = last_wins;
  if (fault == "no-sibling-mask") backend.attention = no_sibling_mask;
  if (fault == "no-adjust") backend.adjust = backend.adjust_undo = nullptr;
  if (fault == "no-ancestors") backend.adjust = no_ancestors;
  if (fault == "sibling-penalties") backend.adjust = siblings;
  if (fault == "no-compaction") backend.kv_compact = no_compaction;
  return backend;
}

// What is asked of a backend beside ops, by round: of the one call of decode() that runs.
std::vector<std::vector<std::string>> calls;
Backend watched;

template <auto member, OpName name, typename... Args>
auto watch(Args... args) {
  calls.back().emplace_back(name.text);
  return (watched.*member)(args...);
}

Backend watching(const Backend& backend) {
  watched = backend;
  calls.assign(1, {});
  Backend b = backend;
#define REDRAFTER_COPY(f) b.f = watch<&Backend::f, #f, void*, const void*, size_t, Stream&>
  REDRAFTER_COPY(upload);
  REDRAFTER_COPY(download);
  REDRAFTER_COPY(upload_later);
  REDRAFTER_COPY(download_later);
#undef REDRAFTER_COPY
  b.wait = watch<&Backend::wait, "wait", Stream&>;
  if (b.begin_capture != nullptr) {
    b.begin_capture = watch<&Backend::begin_capture, "begin_capture", Stream&>;
    b.end_capture = watch<&Backend::end_capture, "end_capture", Stream&>;
    b.launch_graph = watch<&Backend::launch_graph, "launch_graph", void*, Stream&>;
  }
  return b;
}

bool keep_going(uint64_t) { return true; }

std::vector<int32_t> ids_of(const Napi::Value& value) {
  const auto array = value.As<Napi::Int32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

// { fault, model, drafter, ids, maxTokens, beamWidth, beamLength, eos, device?, repetition?, frequency? } ->
// { ids, kv, logits, calls } where kv holds K of layer 0, logits are those of the first row of the last
// round, and calls, by round, what was asked of the backend. beamWidth 0 decodes plainly. Faults are planted
// on the CPU.
Napi::Value decode(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Object options = info[0].As<Napi::Object>();
    const auto text = [&](const char* key) { return options.Get(key).As<Napi::String>().Utf8Value(); };
    const auto number = [&](const char* key) { return options.Get(key).As<Napi::Number>().Int64Value(); };
    const std::string fault = text("fault");
    const Backend backend =
        watching(options.Has("device") ? find_backend(text("device")) : with_fault(fault));
    ThreadPool pool(1);
    BackendStream backend_stream(backend, &pool);
    Stream& stream = backend_stream.get();
    const ModelConfig config = read_model_config(text("model"));
    const int64_t positions = 512, nodes = max_tree_nodes(kMaxBeamWidth, kMaxBeamLength);
    Model model(config,
                load_model_weights(config, Checkpoint::open(text("model")), backend, stream, keep_going),
                backend, stream, {nodes, positions, pool.size()});
    RecurrentDrafter drafter(load_recurrent_weights(text("drafter"), config, backend, stream, keep_going),
                             model.weights().embedding, backend, stream);
    KvCache cache(KvShape(config.layers, config.kv_heads, config.head_dim, 128, backend, DType::kBF16),
                  backend, stream);
    KvSequence kv(cache);
    std::vector<int32_t> tokens = ids_of(options.Get("ids"));
    const size_t prompt = tokens.size();
    const std::vector<int32_t> eos = ids_of(options.Get("eos"));

    Round round(model, cache, &drafter, stream);
    Lane lane;
    lane.hidden = HiddenRows::Taken(round.hidden());
    lane.tokens = &tokens;
    lane.kv = &kv;
    lane.beam_width = number("beamWidth");
    lane.beam_length = lane.beam_width == 0 ? 0 : number("beamLength");
    lane.max_tokens = number("maxTokens");
    lane.prompt_rows = 64;
    if (fault != "no-eos-cut") lane.stop.eos = eos;
    ControlSpec control;
    if (options.Has("repetition"))
      control.repetition = options.Get("repetition").As<Napi::Number>().FloatValue();
    if (options.Has("frequency"))
      control.frequency = options.Get("frequency").As<Napi::Number>().FloatValue();
    if (control.any()) {
      lane.control = std::make_unique<LaneControl>(control, lane.stop, tokens);
      const int64_t most = lane.control->most_entries(lane.max_tokens, config.vocab);
      lane.control_room = std::make_unique<ControlBatch::Room>(round.control(), ControlBatch::Need{most, 0});
    }
    kv.reserve(static_cast<int64_t>(prompt) + lane.max_tokens + nodes);
    const auto ended = [&] {
      return lane.finish != Finish::kNone ||
             (!lane.emitted.empty() && std::find(eos.begin(), eos.end(), tokens.back()) != eos.end());
    };
    do {
      calls.emplace_back();
      round.run({&lane}, [] { calls.back().emplace_back("meanwhile"); });
      REDRAFTER_CHECK(!lane.failed);
    } while (!ended());

    Napi::Object result = Napi::Object::New(info.Env());
    auto rounds = Napi::Array::New(info.Env());
    for (size_t i = 1; i < calls.size(); ++i) {  // before the first round it loads
      auto of_round = Napi::Array::New(info.Env());
      for (const std::string& call : calls[i]) of_round[of_round.Length()] = call;
      rounds[rounds.Length()] = of_round;
    }
    result.Set("calls", rounds);
    auto ids = Napi::Int32Array::New(info.Env(), tokens.size() - prompt);
    std::copy(tokens.begin() + static_cast<std::ptrdiff_t>(prompt), tokens.end(), ids.Data());
    const int64_t width = config.kv_heads * config.head_dim;
    auto values = Napi::Float32Array::New(info.Env(), static_cast<size_t>(kv.length() * width));
    std::vector<float> block(static_cast<size_t>(cache.shape().block_floats()));
    for (int64_t t = 0; t < kv.length(); ++t) {
      if (t % kBlockTokens == 0) {
        cache.export_block(0, kv.blocks()[static_cast<size_t>(t / kBlockTokens)], kBlockTokens, block.data(),
                           stream);
      }
      for (int64_t i = 0; i < width; ++i) {
        values[static_cast<size_t>(t * width + i)] =
            block[static_cast<size_t>(i * kBlockTokens + t % kBlockTokens)];
      }
    }
    result.Set("ids", ids);
    result.Set("kv", values);
    auto logits = Napi::Float32Array::New(info.Env(), static_cast<size_t>(config.vocab));
    backend.download(logits.Data(), model.logits(), static_cast<size_t>(config.vocab) * sizeof(float),
                     stream);
    result.Set("logits", logits);
    return result;
  });
}

}  // namespace

void add_faults(Napi::Env env, Napi::Object exports) {
  exports.Set("decode", Napi::Function::New(env, decode, "decode"));
}

}  // namespace redrafter::testing
