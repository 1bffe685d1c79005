// The kernels of one draft step, at beam width 8 and 64, and a whole draft round.
#include <algorithm>
#include <cmath>
#include <utility>

#include "case.h"

namespace redrafter::lab {
namespace {

struct Drafter {
  Cell cell;
  int64_t hidden, exit, blocks, vocab;
  DType dtype;
  bool projection() const { return exit != 2 * hidden; }
  int64_t gates() const { return cell == Cell::kGru ? 3 : cell == Cell::kElman ? 1 : 0; }
};

// Ours: a GRU of the target's width. Apple's checkpoints: an Elman cell, twice the width behind it, the whole
// vocabulary.
Drafter gru(const ModelShape& m) {
  return {Cell::kGru, m.hidden, m.hidden, 1, std::min(kDraftVocab, m.vocab), m.dtype};
}
Drafter elman(const ModelShape& m) { return {Cell::kElman, m.hidden, 2 * m.hidden, 2, m.vocab, m.dtype}; }

std::string product(int64_t n, int64_t k) { return std::to_string(n) + " x " + std::to_string(k); }

std::vector<int32_t> some_tokens(int64_t rows, int64_t vocab) {
  std::vector<int32_t> token;
  for (int64_t r = 0; r < rows; ++r) token.push_back(static_cast<int32_t>(r * 997 % vocab));
  return token;
}

Cost cell_cost(const Drafter& d, int64_t rows) {
  return {2 * weight_bytes(d.dtype, d.gates() * d.hidden, d.hidden) + weight_bytes(d.dtype, rows, d.hidden) +
              8.0 * count(rows * d.hidden),
          4.0 * count(rows * d.gates() * d.hidden * d.hidden)};
}

Case cell_case(const ModelShape& m, const Drafter& d, int64_t rows) {
  return {"cell",
          std::string(cell_name(d.cell)) + " " + std::to_string(d.hidden),
          rows,
          cell_cost(d, rows),
          [=](Memory& memory) -> Run {
            const Matrix table = memory.matrix(m.vocab, m.hidden, d.dtype);
            std::vector<Matrix> w(1), u(1);
            if (d.gates() > 0) {
              w = memory.matrices(d.gates() * d.hidden, d.hidden, d.dtype);
              u = memory.matrices(d.gates() * d.hidden, d.hidden, d.dtype);
            }
            QuantGroup* room = memory.room(2 * rows, d.hidden);
            const int32_t* token = memory.of(some_tokens(rows, m.vocab));
            const float* s = memory.floats(rows * d.hidden);
            float *s_next = memory.empty<float>(rows * d.hidden),
                  *scratch = memory.empty<float>(rows * 7 * d.hidden);
            return [=, &backend = memory.backend()](Stream& stream, int64_t turn) {
              CellParams p{};
              p.cell = d.cell, p.token = token, p.table = table, p.s = s, p.s_next = s_next;
              p.w = w[static_cast<size_t>(turn) % w.size()], p.u = u[static_cast<size_t>(turn) % u.size()];
              p.rows = rows, p.hidden = d.hidden, p.scratch = scratch, p.room = room;
              backend.cell(p, stream);
            };
          },
          d.dtype};
}

Case mix_case(const Drafter& d, int64_t rows) {
  const Cost cost = d.projection() ? matmul_cost(d.dtype, rows, d.exit, 2 * d.hidden, false)
                                   : Cost{4.0 * count(rows * 3 * d.hidden), 0};
  return {"mix",
          d.projection() ? product(d.exit, 2 * d.hidden) : "joined",
          rows,
          cost,
          [=](Memory& memory) -> Run {
            std::vector<Matrix> projection(1);
            if (d.projection()) projection = memory.matrices(d.exit, 2 * d.hidden, d.dtype);
            QuantGroup* room = memory.room(rows, 2 * d.hidden);
            const float *h = memory.floats(d.hidden), *s = memory.floats(rows * d.hidden);
            float *z = memory.empty<float>(rows * d.exit),
                  *scratch = memory.empty<float>(rows * 2 * d.hidden);
            return [=, &backend = memory.backend()](Stream& stream, int64_t turn) {
              backend.mix({h, s, projection[static_cast<size_t>(turn) % projection.size()], nullptr, z, rows,
                           d.hidden, d.exit, scratch, nullptr, 1, room},
                          stream);
            };
          },
          d.projection() ? std::optional(d.dtype) : std::nullopt};
}

Case residual_case(const Drafter& d, int64_t rows) {
  return {"residual",
          product(d.exit, d.exit),
          rows,
          matmul_cost(d.dtype, rows, d.exit, d.exit, false),
          [=](Memory& memory) -> Run {
            const std::vector<Matrix> a = memory.matrices(d.exit, d.exit, d.dtype);
            QuantGroup* room = memory.room(rows, d.exit);
            const float *z = memory.floats(rows * d.exit), *bias = memory.floats(d.exit);
            float* z_next = memory.empty<float>(rows * d.exit);
            return [=, &backend = memory.backend()](Stream& stream, int64_t turn) {
              backend.residual({z, z_next, a[static_cast<size_t>(turn) % a.size()], bias, rows, d.exit, room},
                               stream);
            };
          },
          d.dtype};
}

Cost head_cost(const Drafter& d, int64_t rows) {
  return {weight_bytes(d.dtype, d.vocab, d.exit) + 4.0 * count(rows * d.exit) + 8.0 * count(rows * rows),
          2.0 * count(rows * d.vocab * d.exit)};
}

Case head_case(const Drafter& d, int64_t rows) {
  return {"head_top",
          product(d.vocab, d.exit),
          rows,
          head_cost(d, rows),
          [=](Memory& memory) -> Run {
            const std::vector<Matrix> head = memory.matrices(d.vocab, d.exit, d.dtype);
            QuantGroup* room = memory.room(rows, d.exit);
            const float* z = memory.floats(rows * d.exit);
            int32_t* token = memory.empty<int32_t>(rows * rows);
            float *logit = memory.empty<float>(rows * rows), *sum = memory.empty<float>(rows);
            float* scratch = memory.empty<float>(rows * head_top_scratch(d.vocab));
            return [=, &backend = memory.backend()](Stream& stream, int64_t turn) {
              backend.head_top({z, head[static_cast<size_t>(turn) % head.size()], rows, rows, token, logit,
                                sum, scratch, room},
                               stream);
            };
          },
          d.dtype};
}

// kBeamLength steps, the first of them with one row, and the pack: all kernels of a round in their order.
Case round_case(const ModelShape& m, const Drafter& d, int64_t width) {
  Cost cost;
  for (int64_t step = 0; step < kBeamLength; ++step) {
    const int64_t rows = step == 0 ? 1 : width;
    for (const Cost& part :
         {cell_cost(d, rows), head_cost(d, rows),
          d.projection() ? matmul_cost(d.dtype, rows, d.exit, 2 * d.hidden, false) : Cost{}}) {
      cost.bytes += part.bytes, cost.flops += part.flops;
    }
    const Cost block = matmul_cost(d.dtype, rows, d.exit, d.exit, false);
    cost.bytes += count(d.blocks) * block.bytes, cost.flops += count(d.blocks) * block.flops;
  }
  return {"draft round",
          std::string(cell_name(d.cell)) + ", " + std::to_string(kBeamLength) + " steps",
          width,
          cost,
          [=](Memory& memory) -> Run {
            const Matrix table = memory.matrix(m.vocab, m.hidden, d.dtype);
            Matrix w, u, projection;
            if (d.gates() > 0) {
              w = memory.matrix(d.gates() * d.hidden, d.hidden, d.dtype);
              u = memory.matrix(d.gates() * d.hidden, d.hidden, d.dtype);
            }
            if (d.projection()) projection = memory.matrix(d.exit, 2 * d.hidden, d.dtype);
            std::vector<Matrix> blocks;
            for (int64_t i = 0; i < d.blocks; ++i) blocks.push_back(memory.matrix(d.exit, d.exit, d.dtype));
            const Matrix head = memory.matrix(d.vocab, d.exit, d.dtype);
            QuantGroup* room = memory.room(2 * width, std::max(d.exit, 2 * d.hidden));
            const int64_t columns = kBeamLength + 1, nodes = 1 + width * kBeamLength;
            const int32_t* root = memory.of(std::vector<int32_t>{17});
            const float* h = memory.floats(d.hidden);
            float *s = memory.empty<float>(width * d.hidden), *s_next = memory.empty<float>(width * d.hidden);
            float *z = memory.empty<float>(width * d.exit), *z_next = memory.empty<float>(width * d.exit);
            float* mixed = memory.empty<float>(width * 2 * d.hidden);
            int32_t *top = memory.empty<int32_t>(width * width), *live = memory.empty<int32_t>(1);
            float *logit = memory.empty<float>(width * width), *sum = memory.empty<float>(width);
            float *scores = memory.empty<float>(width * columns),
                  *next_scores = memory.empty<float>(width * columns);
            float* scratch = memory.empty<float>(width * head_top_scratch(d.vocab));
            float* cell_scratch = memory.empty<float>(width * 7 * d.hidden);
            int32_t* beams = memory.empty<int32_t>(width * columns);
            int32_t *next_beams = memory.empty<int32_t>(width * columns),
                    *unpack = memory.empty<int32_t>(width * columns);
            int32_t *tree = memory.empty<int32_t>(3 * nodes), *made = memory.empty<int32_t>(1);
            float* beam_scratch = memory.empty<float>((width + 2) * width);
            int32_t* pack_scratch = memory.empty<int32_t>(2 * nodes);
            return [=, &backend = memory.backend()](Stream& stream, int64_t) {
              int32_t *from_beams = beams, *to_beams = next_beams;
              float *from_scores = scores, *to_scores = next_scores;
              backend.beam_start({root, 1, columns, d.hidden, from_scores, from_beams, s}, stream);
              for (int64_t step = 1; step <= kBeamLength; ++step) {
                const int64_t rows = step == 1 ? 1 : width;
                CellParams cell{};
                cell.cell = d.cell, cell.token = from_beams + step - 1, cell.token_stride = columns,
                cell.table = table;
                cell.s = s, cell.s_next = s_next, cell.w = w, cell.u = u, cell.rows = rows,
                cell.hidden = d.hidden;
                cell.scratch = cell_scratch, cell.room = room;
                backend.cell(cell, stream);
                backend.mix(
                    {h, s_next, projection, nullptr, z, rows, d.hidden, d.exit, mixed, nullptr, 1, room},
                    stream);
                float *from = z, *to = z_next;
                for (const Matrix& a : blocks) {
                  backend.residual({from, to, a, nullptr, rows, d.exit, room}, stream);
                  std::swap(from, to);
                }
                backend.head_top({from, head, rows, width, top, logit, sum, scratch, room}, stream);
                backend.beam({top, logit, sum, nullptr, from_scores, from_beams, s_next, rows, width, columns,
                              step, d.hidden, to_scores, to_beams, s, live, beam_scratch},
                             stream);
                std::swap(from_beams, to_beams);
                std::swap(from_scores, to_scores);
              }
              backend.tree_pack({from_beams, from_scores, root, live, 1, width, kBeamLength, nodes, -INFINITY,
                                 tree, tree + nodes, tree + 2 * nodes, unpack, made, pack_scratch},
                                stream);
            };
          },
          d.dtype};
}

// Beams of one lane that share no prefix but the root: the largest tree.
std::vector<int32_t> apart(int64_t width, int64_t columns) {
  std::vector<int32_t> beams;
  for (int64_t i = 0; i < width * columns; ++i) {
    beams.push_back(i % columns == 0 ? 17 : static_cast<int32_t>(100 + i));
  }
  return beams;
}

Case beam_case(const Drafter& d, int64_t width) {
  const double state = 8.0 * count(width * d.hidden);
  return {"beam",
          std::to_string(width) + " x " + std::to_string(width),
          width,
          {state + 12.0 * count(width * width), 0},
          [=](Memory& memory) -> Run {
            const int64_t columns = kBeamLength + 1;
            const int32_t* token = memory.of(some_tokens(width * width, d.vocab));
            const float *logit = memory.floats(width * width), *sum = memory.floats(width),
                        *scores = memory.floats(width * columns);
            const int32_t* beams = memory.of(apart(width, columns));
            const float* state_of = memory.floats(width * d.hidden);
            float *next_scores = memory.empty<float>(width * columns),
                  *next_state = memory.empty<float>(width * d.hidden);
            int32_t *next_beams = memory.empty<int32_t>(width * columns), *live = memory.empty<int32_t>(1);
            float* scratch = memory.empty<float>((width + 2) * width);
            return [=, &backend = memory.backend()](Stream& stream, int64_t) {
              backend.beam({token, logit, sum, nullptr, scores, beams, state_of, width, width, columns, 2,
                            d.hidden, next_scores, next_beams, next_state, live, scratch},
                           stream);
            };
          }};
}

// tree_pack, tree_rows, tree_accept and keep_hidden of one lane, one after another.
Case tree_case(const Drafter& d, int64_t width) {
  const int64_t nodes = 1 + width * kBeamLength, columns = kBeamLength + 1;
  const double moved =
      4.0 * count(width * columns * 2 + nodes * (3 + 3 + 9 + columns + 3)) + 8.0 * count(d.hidden);
  return {
      "tree", "pack, rows, accept, keep", width, {moved, 0}, [=](Memory& memory) -> Run {
        const int32_t* beams = memory.of(apart(width, columns));
        const float* scores = memory.floats(width * columns);
        const auto one = [&](int64_t value) {
          return memory.of(std::vector<int32_t>{static_cast<int32_t>(value)});
        };
        const int32_t *root = one(17), *live = one(width), *committed = one(100), *to_row = one(0);
        const int32_t* begin = memory.of(std::vector<int32_t>{0, static_cast<int32_t>(nodes)});
        int32_t* tree = memory.empty<int32_t>(3 * nodes);
        int32_t *unpack = memory.empty<int32_t>(width * columns), *made = memory.empty<int32_t>(1);
        int32_t *rows = memory.empty<int32_t>(8 * nodes), *tails = memory.empty<int32_t>(nodes * columns);
        int32_t* chosen = memory.of(std::vector<int32_t>(static_cast<size_t>(nodes), 101));
        int32_t *path = memory.empty<int32_t>(2 * columns), *length = memory.empty<int32_t>(1);
        const float* hidden_out = memory.floats(nodes * d.hidden);
        float* kept = memory.empty<float>(d.hidden);
        int32_t* scratch = memory.empty<int32_t>(2 * nodes);
        return [=, &backend = memory.backend()](Stream& stream, int64_t) {
          backend.tree_pack({beams, scores, root, live, 1, width, kBeamLength, nodes, -INFINITY, tree,
                             tree + nodes, tree + 2 * nodes, unpack, made, scratch},
                            stream);
          int32_t* row[8];
          for (int i = 0; i < 8; ++i) row[i] = rows + i * nodes;
          backend.tree_rows({tree, tree + nodes, tree + 2 * nodes, made, 1, nodes, begin, committed, 0,
                             columns, row[0], row[1], row[2], row[3], row[4], row[5], tails, row[6], row[7]},
                            stream);
          backend.tree_accept({row[0], row[7], chosen, begin, 1, columns, path, path + columns, length},
                              stream);
          backend.keep_hidden({hidden_out, begin, path, length, to_row, kept, 1, columns, d.hidden}, stream);
        };
      }};
}

}  // namespace

std::vector<Case> drafter_cases(const ModelShape& m) {
  std::vector<Case> all;
  for (const Drafter& d : {gru(m), elman(m)}) {
    for (const int64_t rows : {int64_t{1}, kBeamWidth, int64_t{64}}) {
      all.push_back(cell_case(m, d, rows));
      all.push_back(mix_case(d, rows));
      all.push_back(residual_case(d, rows));
      all.push_back(head_case(d, rows));
    }
    for (const int64_t width : {1, 2, 4, 8, 16, 32, 64}) all.push_back(round_case(m, d, width));
  }
  for (const int64_t width : {kBeamWidth, int64_t{64}}) {
    all.push_back(beam_case(gru(m), width));
    all.push_back(tree_case(gru(m), width));
  }
  const Drafter sum{Cell::kSum, m.hidden, m.hidden, 1, std::min(kDraftVocab, m.vocab), m.dtype};
  all.push_back(cell_case(m, sum, kBeamWidth));
  return all;
}

}  // namespace redrafter::lab
