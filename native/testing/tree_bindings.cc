// The ops of draft trees.
#include "testing/op_call.h"

namespace redrafter::testing {
namespace {

// treePack {beams, scores, root, live, width, length, budget, least}: {token, parent, depth, unpack, nodes},
// arrays with room for budget nodes a lane
Napi::Value tree_pack(OpCall& call) {
  const Fields& p = call.params();
  const int64_t lanes = p.length<int32_t>("live"), width = p.integer("width"), length = p.integer("length");
  const int64_t columns = length + 1, beams = lanes * width * columns, all = 1 + width * length;
  const int64_t budget = p.integer("budget");
  REDRAFTER_REQUIRE(lanes > 0 && width > 0 && budget >= 1 && budget <= all, "ERR_INVALID_ARGUMENT",
                    "live, width or budget");
  const int32_t *given = p.host<int32_t>("beams", beams), *live = p.host<int32_t>("live", lanes);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const int32_t* first = given + lane * width * columns;
    for (int64_t row = 1; row < live[lane]; ++row) {
      REDRAFTER_REQUIRE(row < width && first[row * columns] == *first, "ERR_INVALID_ARGUMENT",
                        "too many live rows, or they have no common root");
    }
  }
  const auto out = [&](int64_t each) { return call.out<int32_t>(lanes * each); };
  int32_t *token = out(budget), *parent = out(budget), *depth = out(budget);
  int32_t *unpack = out(width * columns), *nodes = out(1);
  call.backend().tree_pack({p.in<int32_t>("beams", beams), p.in<float>("scores", beams),
                            p.in<int32_t>("root", lanes), p.indices("live", lanes, 0, width + 1), lanes,
                            width, length, budget, static_cast<float>(p.number("least")), token, parent,
                            depth, unpack, nodes, call.out<int32_t>(2 * all)},
                           call.stream());
  auto result = Napi::Object::New(call.env());
  result["token"] = call.take(token);
  result["parent"] = call.take(parent);
  result["depth"] = call.take(depth);
  result["unpack"] = call.take(unpack);
  result["nodes"] = call.take(nodes);
  return result;
}

// Outputs of lanes: those of lane l are begin[l] .. begin[l + 1] - 1 of `rows`, none or at least `least` of
// them.
template <typename Least>
const int32_t* begin_of(const Fields& p, int64_t lanes, int64_t rows, const Least& least) {
  const int32_t* begin = p.host<int32_t>("begin", lanes + 1);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const int64_t own = begin[lane + 1] - begin[lane];
    REDRAFTER_REQUIRE(own == 0 || own >= least(lane), "ERR_INVALID_ARGUMENT", "begin[", lane, "]");
  }
  return p.indices("begin", lanes + 1, 0, rows + 1);
}

// That walks from a node to its root end, and take as many steps as its depth says.
void check_trees(const Fields& p, int64_t lanes, int64_t budget, int64_t tail_stride) {
  const int32_t *parent = p.host<int32_t>("parent", lanes * budget),
                *depth = p.host<int32_t>("depth", lanes * budget), *nodes = p.host<int32_t>("nodes", lanes);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    REDRAFTER_REQUIRE(nodes[lane] >= 1 && nodes[lane] <= budget, "ERR_INVALID_ARGUMENT", "nodes");
    const int64_t first = lane * budget;
    for (int64_t n = 0; n < nodes[lane]; ++n) {
      const int32_t above = parent[first + n];
      const bool fits = n == 0 ? above == -1 : above >= 0 && above < n;
      REDRAFTER_REQUIRE(fits && depth[first + n] == (n == 0 ? 0 : depth[first + above] + 1) &&
                            depth[first + n] < tail_stride,
                        "ERR_INVALID_ARGUMENT", "node ", n, " of lane ", lane);
    }
  }
}

// treeRows {token, parent, depth, nodes, budget, begin, committed, firstSequence, tailStride, rows}:
// {token, position, slot, sequence, context, tailBegin, tailSlots, choosePosition, parent} of all rows of the
// pass
Napi::Value tree_rows(OpCall& call) {
  const Fields& p = call.params();
  const int64_t lanes = p.length<int32_t>("nodes"), budget = p.integer("budget");
  const int64_t rows = p.integer("rows"), stride = p.integer("tailStride");
  check_trees(p, lanes, budget, stride);
  const int32_t* nodes = p.host<int32_t>("nodes", lanes);
  const auto out = [&](int64_t each) { return call.out<int32_t>(rows * each); };
  const TreeRowsParams params{p.in<int32_t>("token", lanes * budget),
                              p.in<int32_t>("parent", lanes * budget),
                              p.in<int32_t>("depth", lanes * budget),
                              p.in<int32_t>("nodes", lanes),
                              lanes,
                              budget,
                              begin_of(p, lanes, rows, [nodes](int64_t lane) { return nodes[lane]; }),
                              p.in<int32_t>("committed", lanes),
                              p.integer("firstSequence"),
                              stride,
                              out(1),
                              out(1),
                              out(1),
                              out(1),
                              out(1),
                              out(1),
                              out(stride),
                              out(1),
                              out(1)};
  call.backend().tree_rows(params, call.stream());
  auto result = Napi::Object::New(call.env());
  result["token"] = call.take(params.row_token);
  result["position"] = call.take(params.position);
  result["slot"] = call.take(params.slot);
  result["sequence"] = call.take(params.sequence);
  result["context"] = call.take(params.context);
  result["tailBegin"] = call.take(params.tail_begin);
  result["tailSlots"] = call.take(params.tail_slots);
  result["choosePosition"] = call.take(params.choose_position);
  result["parent"] = call.take(params.row_parent);
  return result;
}

// treeAccept {token, parent, chosen, begin, stride}: {path, emitted, pathLength}
Napi::Value tree_accept(OpCall& call) {
  const Fields& p = call.params();
  const int64_t rows = p.length<int32_t>("token"), lanes = p.length<int32_t>("begin") - 1;
  const int64_t stride = p.integer("stride");
  REDRAFTER_REQUIRE(lanes > 0 && stride > 0, "ERR_INVALID_ARGUMENT", "begin or stride");
  int32_t *path = call.out<int32_t>(lanes * stride), *emitted = call.out<int32_t>(lanes * stride),
          *length = call.out<int32_t>(lanes);
  call.backend().tree_accept(
      {p.in<int32_t>("token", rows), p.indices("parent", rows, -1, rows), p.in<int32_t>("chosen", rows),
       begin_of(p, lanes, rows, [](int64_t) { return 1; }), lanes, stride, path, emitted, length},
      call.stream());
  auto result = Napi::Object::New(call.env());
  result["path"] = call.take(path);
  result["emitted"] = call.take(emitted);
  result["pathLength"] = call.take(length);
  return result;
}

// keepHidden {hiddenOut, begin, path, pathLength, stride, toRow, to, hidden}: `to` after it
Napi::Value keep_hidden(OpCall& call) {
  const Fields& p = call.params();
  const int64_t lanes = p.length<int32_t>("pathLength"), stride = p.integer("stride");
  const int64_t hidden = p.integer("hidden");
  REDRAFTER_REQUIRE(lanes > 0 && hidden > 0, "ERR_INVALID_ARGUMENT", "pathLength or hidden");
  const int64_t rows = p.length<float>("hiddenOut") / hidden, to_rows = p.length<float>("to") / hidden;
  const int32_t *path = p.host<int32_t>("path", lanes * stride),
                *length = p.host<int32_t>("pathLength", lanes);
  const auto last_node = [&](int64_t lane) {
    REDRAFTER_REQUIRE(length[lane] >= 1 && length[lane] <= stride, "ERR_INVALID_ARGUMENT", "pathLength");
    return path[lane * stride + length[lane] - 1] + 1;
  };
  float* to = p.in<float>("to", to_rows * hidden);
  call.backend().keep_hidden({p.in<float>("hiddenOut", rows * hidden), begin_of(p, lanes, rows, last_node),
                              p.in<int32_t>("path", lanes * stride), p.in<int32_t>("pathLength", lanes),
                              p.indices("toRow", lanes, 0, to_rows), to, lanes, stride, hidden},
                             call.stream());
  return call.take(to);
}

}  // namespace

void add_tree_ops(Napi::Object ops) {
  add_op<tree_pack>(ops, "treePack");
  add_op<tree_rows>(ops, "treeRows");
  add_op<tree_accept>(ops, "treeAccept");
  add_op<keep_hidden>(ops, "keepHidden");
}

}  // namespace redrafter::testing
