// The planner on its own, told what rounds cost and how drafts fared; and planners for engines of tests.
#include <map>
#include <memory>

#include "base/philox.h"
#include "spec/planner.h"
#include "testing/testing.h"

namespace redrafter::testing {
namespace {

int64_t integer(const Napi::Value& value) { return value.As<Napi::Number>().Int64Value(); }
int64_t integer(const Napi::Object& object, const char* key) { return integer(object.Get(key)); }
double number(const Napi::Object& object, const char* key) {
  return object.Get(key).As<Napi::Number>().DoubleValue();
}

// [[size, ms], ...]
CostCurve curve_of(const Napi::Value& value) {
  const auto list = value.As<Napi::Array>();
  std::vector<CostCurve::Point> points;
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const auto point = list.Get(i).As<Napi::Array>();
    points.push_back({integer(point.Get(0u)), point.Get(1u).As<Napi::Number>().DoubleValue()});
  }
  return CostCurve(std::move(points));
}

// A planner and what it knows of requests, which are made when they are first named.
struct Told {
  Planner planner;
  std::map<int64_t, Acceptance> requests;

  Acceptance& request(int64_t id) {
    return requests.try_emplace(id, Acceptance(planner.shared(false))).first->second;
  }
};

// plan(requests: {id, mostLength}[], {otherRows, mostRows}): {width, length, budget}[]
Napi::Value plan(Told& told, const Napi::CallbackInfo& info) {
  const auto list = info[0].As<Napi::Array>();
  const auto round = info[1].As<Napi::Object>();
  std::vector<PlanLane> lanes;
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const auto lane = list.Get(i).As<Napi::Object>();
    lanes.push_back({&told.request(integer(lane, "id")), integer(lane, "mostLength")});
  }
  const auto& shapes = told.planner.plan(lanes, {integer(round, "otherRows"), integer(round, "mostRows")});
  auto result = Napi::Array::New(info.Env(), shapes.size());
  for (uint32_t i = 0; i < shapes.size(); ++i) {
    auto shape = Napi::Object::New(info.Env());
    shape["width"] = static_cast<double>(shapes[i].width);
    shape["length"] = static_cast<double>(shapes[i].length);
    shape["budget"] = static_cast<double>(shapes[i].budget);
    result[i] = shape;
  }
  return result;
}

// learn(id, {width, length, accepted, onFirstBeam}); without an outcome it decoded plainly
Napi::Value learn(Told& told, const Napi::CallbackInfo& info) {
  Acceptance& request = told.request(integer(info[0]));
  if (info[1].IsUndefined()) {
    request.decoded_plainly();
  } else {
    const auto o = info[1].As<Napi::Object>();
    request.learn(
        {integer(o, "width"), integer(o, "length"), integer(o, "accepted"), integer(o, "onFirstBeam")});
  }
  return info.Env().Undefined();
}

// observe({drafts: {lanes, width, length}[], rows, draftMs, verifyMs, hostMs})
Napi::Value observe(Told& told, const Napi::CallbackInfo& info) {
  const auto o = info[0].As<Napi::Object>();
  RoundShape round;
  round.rows = integer(o, "rows");
  const auto drafts = o.Get("drafts").As<Napi::Array>();
  for (uint32_t i = 0; i < drafts.Length(); ++i) {
    const auto group = drafts.Get(i).As<Napi::Object>();
    round.drafts.push_back({integer(group, "lanes"), integer(group, "width"), integer(group, "length")});
  }
  told.planner.costs().observe(round, number(o, "draftMs"), number(o, "verifyMs"), number(o, "hostMs"));
  return info.Env().Undefined();
}

// chain(id): what is expected of a chain, by depth
Napi::Value chain(Told& told, const Napi::CallbackInfo& info) {
  const Depths depths = told.request(integer(info[0])).chain();
  auto result = Napi::Array::New(info.Env(), depths.size());
  for (uint32_t i = 0; i < depths.size(); ++i) result[i] = depths[i];
  return result;
}

// costs({lanes, width, length}, rows): {draftMs, forwardMs}
Napi::Value costs(Told& told, const Napi::CallbackInfo& info) {
  const auto group = info[0].As<Napi::Object>();
  const RoundCosts& all = told.planner.costs();
  auto result = Napi::Object::New(info.Env());
  result["draftMs"] =
      all.draft_ms({integer(group, "lanes"), integer(group, "width"), integer(group, "length")});
  result["forwardMs"] = all.forward_ms(integer(info[1]));
  return result;
}

// create(forward, draftStep): an object with the functions above
Napi::Value create(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto told =
        std::make_shared<Told>(Told{Planner(RoundCosts(curve_of(info[0]), curve_of(info[1]))), {}});
    auto object = Napi::Object::New(info.Env());
    const auto add = [&](const char* name, Napi::Value (*body)(Told&, const Napi::CallbackInfo&)) {
      object[name] = Napi::Function::New(info.Env(), [told, body](const Napi::CallbackInfo& call) {
        return guarded(call.Env(), [&] { return body(*told, call); });
      });
    };
    add("plan", plan);
    add("learn", learn);
    add("observe", observe);
    add("chain", chain);
    add("costs", costs);
    return object;
  });
}

RoundCosts flat_costs() { return RoundCosts(CostCurve({{1, 1.0}, {64, 1.5}}), CostCurve({{1, 0.02}})); }

// Any shape for each request, in any round.
class RandomPlanner final : public Planner {
 public:
  explicit RandomPlanner(uint64_t seed) : Planner(flat_costs()), seed_(seed) {}

  const std::vector<DraftShape>& plan(const std::vector<PlanLane>& lanes, const PlanRound& round) override {
    shapes_.assign(lanes.size(), {});
    int64_t left = round.most_rows - round.other_rows - static_cast<int64_t>(lanes.size());
    for (DraftShape& shape : shapes_) {
      if (draw(4) == 0) continue;
      const int64_t width = 1 + draw(draw(2) == 0 ? 3 : 8), length = 1 + draw(kMaxBeamLength);
      const int64_t most = std::min(max_tree_nodes(width, length), kMostNodes);
      const int64_t budget = draw(2) == 0 ? most : 1 + draw(most);
      if (budget - 1 > left) continue;
      left -= budget - 1;
      shape = {width, length, budget};
    }
    return shapes_;
  }

 private:
  int64_t draw(int64_t end) {
    return static_cast<int64_t>(static_cast<double>(end) *
                                philox_uniform(seed_, ++draws_, 0, DrawPurpose::kToken));
  }
  uint64_t seed_, draws_ = 0;
  std::vector<DraftShape> shapes_;
};

uint64_t planner_seed = 0;

// use('measured' | 'flat' | 'random', seed?): what engines loaded by these bindings plan with from now on
Napi::Value use(const Napi::CallbackInfo& info) {
  const std::string kind = info[0].As<Napi::String>();
  if (kind == "random") planner_seed = static_cast<uint64_t>(integer(info[1]));
  make_planners_with(
      kind == "measured" ? MakePlanner{} : kind == "flat" ? []() -> std::unique_ptr<Planner> {
        return std::make_unique<Planner>(flat_costs());
      }
      : []() -> std::unique_ptr<Planner> { return std::make_unique<RandomPlanner>(planner_seed); });
  return info.Env().Undefined();
}

}  // namespace

void add_planner(Napi::Env env, Napi::Object exports) {
  auto planner = Napi::Object::New(env);
  planner["create"] = Napi::Function::New(env, create);
  planner["use"] = Napi::Function::New(env, use);
  exports["planner"] = planner;
}

}  // namespace redrafter::testing
