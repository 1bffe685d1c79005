import { expect, it } from 'vitest';

import { at, joinBytes, range, rowOf } from '../../kit/arrays.js';
import { encode, randomMatrix } from '../../kit/bf16.js';
import { expectSameBytes, expectSameNumbers, expectWithin } from '../../kit/compare.js';
import type { CellArgs, MatrixArg, MixArgs, ResidualArgs, TopRows } from '../../kit/ops.js';
import { Random } from '../../kit/random.js';
import { type CellCase, cellCases, describePair, FINEST, FUSED, headCases, mixCases, residualCases } from './cases.js';
import { describeLevels, ops } from './levels.js';
import { maskedHeads, maskFaults } from './masked-heads.js';
import * as reference from './reference.js';

function cellArgs(c: CellCase): CellArgs {
  const random = new Random(c.hidden);
  const { cell, rows, hidden } = c;
  const gates = cell === 'gru' ? 3 * hidden : hidden;
  return {
    ...{ cell, rows, hidden, e: random.floats(rows * hidden), s: random.floats(rows * hidden) },
    ...(cell === 'sum'
      ? {}
      : { w: randomMatrix(random, c.dtype, gates, hidden), u: randomMatrix(random, c.dtype, gates, hidden) }),
    ...(cell === 'sum' || !c.bias ? {} : { wBias: random.floats(gates), uBias: random.floats(gates) }),
  };
}

/** The same cell with its inputs in a table of 37 tokens, of its dtype or another; `cols` as the table needs. */
function lookedUp(c: CellCase, cols: number): CellArgs & { token: Int32Array; table: MatrixArg } {
  const random = new Random(c.hidden + 1);
  const args = cellArgs(c);
  delete args.e;
  const token = Int32Array.from({ length: c.rows }, () => random.integer(0, 37));
  const dtype = c.bias ? c.dtype : c.dtype === 'f16' ? 'bf16' : 'f16';
  return { ...args, token, table: randomMatrix(random, dtype, 37, cols, 1) };
}

function foldedArgs(c: CellCase): CellArgs & { token: Int32Array } {
  const args = lookedUp(c, c.cell === 'gru' ? 3 * c.hidden : c.hidden);
  delete args.w;
  delete args.wBias;
  return args;
}

const mixes: MixArgs[] = mixCases.map(([rows, exit, dtype, biased, hidden], seed) => {
  const random = new Random(seed);
  return {
    ...{ rows, exit, hidden, h: random.floats(hidden), s: random.floats(rows * hidden) },
    projection: randomMatrix(random, dtype, exit, 2 * hidden),
    ...(biased ? { bias: random.floats(exit) } : {}),
  };
});

const residuals: ResidualArgs[] = residualCases.map(([rows, exit, dtype, biased], seed) => {
  const random = new Random(seed);
  const a = randomMatrix(random, dtype, exit, exit);
  return { rows, exit, z: random.floats(rows * exit), a, ...(biased ? { bias: random.floats(exit) } : {}) };
});

/** The logits of long rows are whole numbers, the same in every order of summation; and many are equal. */
const heads = headCases.map(([rows, exit, vocab, top], seed) => {
  const random = new Random(seed);
  if (exit <= 64) {
    return { z: random.floats(rows * exit), head: randomMatrix(random, 'bf16', vocab, exit, 0.5), rows, top };
  }
  const whole = (count: number): Float32Array => random.floats(count).map(Math.round);
  const source = encode('bf16', whole(vocab * exit));
  return { z: whole(rows * exit), head: { source, dtype: 'bf16' as const, rows: vocab, cols: exit }, rows, top };
});

const topBytes = (y: TopRows): Uint8Array => joinBytes(y.token, y.logit, y.logSumExp);

describeLevels('drafter', (level) => {
  it.each(['sum', 'elman', 'gru'])('cell %s is within its bound', (cell) => {
    for (const c of cellCases.filter((one) => one.cell === cell)) {
      expectWithin(ops.cell(level, 1, cellArgs(c)), reference.cell(cellArgs(c)), JSON.stringify(c));
    }
  });
  it.each(['sum', 'elman', 'gru'])('cell %s looks its inputs up with the same bits', (cell) => {
    for (const c of cellCases.filter((one) => one.cell === cell)) {
      const { token, table, ...args } = lookedUp(c, c.hidden);
      const given = ops.cell(level, 1, { ...args, e: reference.lookUp(table, token) });
      expectSameBytes(ops.cell(level, 1, { ...args, token, table }), given, JSON.stringify(c));
    }
  });
  it.each(['elman', 'gru'])('cell %s with a folded table is within its bound', (cell) => {
    for (const c of cellCases.filter((one) => one.cell === cell)) {
      expectWithin(ops.cell(level, 1, foldedArgs(c)), reference.cell(foldedArgs(c)), JSON.stringify(c));
    }
  });
  it('cells stay finite for states of any size', () => {
    for (const cell of ['elman', 'gru'] as const) {
      const args = cellArgs({ cell, rows: 2, hidden: 17, dtype: FINEST, bias: true });
      const e = new Random(3).floats(2 * 17, 1e4);
      expect(ops.cell(level, 1, { ...args, e }).every(Number.isFinite)).toBe(true);
    }
  });
  it('mix is within its bound; without a projection it is [h; s] itself', () => {
    for (const args of mixes) {
      expectWithin(ops.mix(level, 1, args), reference.mix(args));
      const { rows, hidden, h, s } = args;
      expectSameBytes(ops.mix(level, 1, { rows, hidden, exit: 2 * hidden, h, s }), reference.joined(args));
    }
  });
  it('mix takes the hidden state of the lane of a row, with the bits that a lane gets alone', () => {
    const random = new Random(9);
    for (const [lanes, rowsPerLane, hidden, exit] of [
      [1, 3, 8, 16],
      [2, 1, 30, 20],
      [5, 4, 33, 66],
      [33, 2, 16, 17],
    ] as const) {
      const rows = lanes * rowsPerLane;
      const h = random.floats((lanes + 2) * hidden);
      h.fill(NaN, 0, hidden); // the first row of h belongs to the last lane, or to none
      const hRow = Int32Array.from(range(lanes), (lane) =>
        lane > 0 && lane === lanes - 1 ? 0 : 1 + random.integer(0, lanes + 1),
      );
      const s = random.floats(rows * hidden);
      const projection = randomMatrix(random, 'bf16', exit, 2 * hidden);
      for (const more of [{ exit, projection, bias: random.floats(exit) }, { exit: 2 * hidden }]) {
        const z = ops.mix(level, 1, { ...more, h, s, hidden, rows, hRow, rowsPerLane });
        for (const lane of range(lanes)) {
          const own = { h: rowOf(h, hidden, at(hRow, lane)), s: rowOf(s, rowsPerLane * hidden, lane) };
          const alone = ops.mix(level, 1, { ...more, ...own, hidden, rows: rowsPerLane });
          expectSameBytes(rowOf(z, rowsPerLane * more.exit, lane), alone, `lane ${lane} of ${lanes}`);
        }
      }
    }
  });
  it('cells take tokens that lie apart, as they do in beams', () => {
    for (const c of cellCases.filter(({ rows, dtype }) => rows < 10 && dtype !== 'f32')) {
      for (const args of [lookedUp(c, c.hidden), ...(c.cell === 'sum' ? [] : [foldedArgs(c)])]) {
        const given = ops.cell(level, 1, args);
        for (const tokenStride of [2, 7]) {
          const token = new Random(tokenStride).integers((c.rows - 1) * tokenStride + 1, 0, 37);
          for (const row of range(c.rows)) token[row * tokenStride] = at(args.token, row);
          expectSameBytes(ops.cell(level, 1, { ...args, token, tokenStride }), given, JSON.stringify(c));
        }
      }
    }
  });
  it('residual is within its bound', () => {
    for (const args of residuals) expectWithin(ops.residual(level, 1, args), reference.residual(args));
  });
  it('headTop gives the best of the logits, in order, and their log-sum-exp', () => {
    for (const args of heads) {
      const vocab = args.head.rows;
      const y = ops.headTop(level, 1, args);
      const logits = ops.matmul(level, 1, { x: args.z, w: args.head, rows: args.rows });
      for (const row of range(args.rows)) {
        const own = rowOf(logits, vocab, row);
        const best = reference.topIndices(own, args.top);
        expectSameNumbers(rowOf(y.token, args.top, row), best);
        expectSameNumbers(
          rowOf(y.logit, args.top, row),
          best.map((i) => (i < 0 ? -Infinity : at(own, i))),
        );
        const { value, bound } = reference.logSumExp(own);
        const sum = { value: Float64Array.of(value), bound: Float64Array.of(bound) };
        expectWithin(rowOf(y.logSumExp, 1, row), sum);
      }
    }
  });
  it('headTop breaks ties by lowest id and never chooses NaN', () => {
    const source = Float32Array.of(1, 2, NaN, 2, -Infinity, 2, 1);
    const y = ops.headTop(level, 1, {
      z: Float32Array.of(1),
      head: { source: encode(FINEST, source), dtype: FINEST, rows: 7, cols: 1 },
      rows: 1,
      top: 8,
    });
    expectSameNumbers(y.token, [1, 3, 5, 0, 6, 4, -1, -1]);
  });
  it('headTop finds nothing in a row of NaN, and does not spoil the next row', () => {
    const head = randomMatrix(new Random(5), 'f32', 40, 6);
    const z = new Random(6).floats(12);
    z.fill(NaN, 0, 6);
    const y = ops.headTop(level, 2, { z, head, rows: 2, top: 3 });
    expectSameNumbers(y.token.subarray(0, 3), [-1, -1, -1]);
    const alone = ops.headTop(level, 1, { z: z.slice(6), head, rows: 1, top: 3 });
    expectSameBytes(y.token.slice(3), alone.token);
    expectSameBytes(y.logSumExp.slice(1), alone.logSumExp);
  });
  it.each(maskedHeads)(
    'headTop of $rows rows chooses among what the mask of $perMask rows allows, as if there were no more',
    (c) => {
      expect(maskFaults(level, c)).toEqual([]);
    },
  );
  it('gives the same bits with one and two threads', () => {
    for (const c of cellCases) {
      for (const args of [cellArgs(c), lookedUp(c, c.hidden), ...(c.cell === 'sum' ? [] : [foldedArgs(c)])]) {
        expectSameBytes(ops.cell(level, 2, args), ops.cell(level, 1, args));
      }
    }
    for (const args of mixes) expectSameBytes(ops.mix(level, 2, args), ops.mix(level, 1, args));
    for (const args of residuals) expectSameBytes(ops.residual(level, 2, args), ops.residual(level, 1, args));
    for (const args of heads) {
      expectSameBytes(topBytes(ops.headTop(level, 2, args)), topBytes(ops.headTop(level, 1, args)));
    }
  });
});

describePair('avx2 and avx512 agree bit for bit', () => {
  const expectAgreement = (run: (level: string) => ArrayBufferView): void => {
    expectSameBytes(run(at(FUSED, 0)), run(at(FUSED, 1)));
  };
  it('cell', () => {
    for (const c of cellCases) expectAgreement((level) => ops.cell(level, 1, cellArgs(c)));
  });
  it('mix', () => {
    for (const args of mixes) expectAgreement((level) => ops.mix(level, 1, args));
  });
  it('residual', () => {
    for (const args of residuals) expectAgreement((level) => ops.residual(level, 1, args));
  });
  it('headTop', () => {
    for (const args of heads) expectAgreement((level) => topBytes(ops.headTop(level, 1, args)));
  });
});
