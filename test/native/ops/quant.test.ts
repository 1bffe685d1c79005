/** Products with quantised matrices: all levels give the bits of the plain loops, and these are the numbers of the formats. */
import { expect, it } from 'vitest';

import { at, columns, joinBytes, range, rowOf } from '../../kit/arrays.js';
import { type Bounded, expectSameBytes, expectWithin } from '../../kit/compare.js';
import type { CellArgs, MatmulArgs, MatrixArg } from '../../kit/ops.js';
import { groupsOf, QUANTISED, quantised } from '../../kit/quantised.js';
import { Random } from '../../kit/random.js';
import { matmulCases } from './cases.js';
import { matmulOp, rowFaults, type RowOp } from './invariance.js';
import { KERNELS, LEVELS, ops } from './levels.js';
import { bounded, gamma } from './reference.js';

const SIZES = matmulCases.filter(({ dtype }) => dtype === 'bf16');
/** Every number of rows and panels in a tile, then several blocks of K (of 16 groups), tiles and groups of panels. */
const LONG = [
  ...[1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 19, 33].map((rows, i) => ({ rows, n: 16 * i + 7, k: 260 + i })),
  ...[1, 3, 10, 14, 70].map((rows) => ({ rows, n: 150, k: 1000 + rows })),
];

function argsOf(
  form: 'q8_0' | 'q4_0',
  c: { rows: number; n: number; k: number; gap?: number },
  seed: number,
): MatmulArgs {
  const random = new Random(seed);
  const { rows, n, k, gap = 0 } = c;
  return {
    x: random.floats(rows * (k + gap)),
    w: quantised(random, form, n, k),
    rows,
    xStride: k + gap,
    yStride: n + gap,
    ...(seed % 2 === 1 ? { bias: random.floats(n) } : {}),
    ...(seed % 3 === 1 ? { residual: random.floats(rows * (n + gap)) } : {}),
  };
}

/** Halves to even. */
function nearest(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return below + (rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? 1 : 0);
}

function groupsOfInput(x: Float32Array): { scale: number; values: number[] }[] {
  return range(Math.ceil(x.length / 32)).map((g) => {
    const own = range(32).map((i) => x[g * 32 + i] ?? 0);
    const largest = Math.max(...own.map(Math.abs));
    const inverse = Math.fround(127 / largest);
    return { scale: Math.fround(largest / 127), values: own.map((v) => nearest(Math.fround(v * inverse))) };
  });
}

/** From the contract, in float64; the bound is that of the chain over groups, bias and residual. */
function reference({ x, w, rows, bias, residual, xStride = w.cols, yStride = w.rows }: MatmulArgs): Bounded {
  const out = bounded(rows * w.rows);
  const all = range(w.rows).map((n) => groupsOf(w, n));
  for (const m of range(rows)) {
    const input = groupsOfInput(x.subarray(m * xStride, m * xStride + w.cols));
    for (const n of range(w.rows)) {
      const terms = at(all, n).map(({ scale, weights }, g) => {
        const { scale: own, values } = at(input, g);
        return weights.reduce((sum, q, i) => sum + q * at(values, i), 0) * scale * own;
      });
      terms.push(bias?.[n] ?? 0, residual?.[m * yStride + n] ?? 0);
      out.value[m * w.rows + n] = terms.reduce((sum, term) => sum + term, 0);
      const magnitude = terms.reduce((sum, term) => sum + Math.abs(term), 0);
      out.bound[m * w.rows + n] = gamma(terms.length + 2) * magnitude + 1e-35;
    }
  }
  return out;
}

const dense = (y: Float32Array, { w, rows, yStride = w.rows }: MatmulArgs): Float32Array =>
  columns(y.subarray(0, rows * yStride), yStride, 0, w.rows);

/** Groups of bytes of any value, -128 too, with scales that are numbers. */
function anyBytes(random: Random, form: 'q8_0' | 'q4_0', rows: number, cols: number): MatrixArg {
  const w = quantised(random, form, rows, cols);
  const words = form === 'q8_0' ? 17 : 9;
  const source = Uint16Array.from(w.source, (scale, i) =>
    i % words === 0 ? scale : random.pick([0x8080, 0x7f7f, 0xffff, 0, random.integer(0, 65536)]),
  );
  return { ...w, source };
}

const levels = KERNELS ? [] : LEVELS;

/** The layout that ops/matmul_quant.h states, byte by byte. */
function panels(w: MatrixArg): Uint8Array {
  const groups = Math.ceil(w.cols / 32);
  const [scales, size] = [Math.ceil(groups / 2) * 64, w.dtype === 'q8_0' ? 512 : 256];
  const panel = scales + groups * size;
  const out = new Uint8Array(Math.ceil(w.rows / 16) * panel);
  const bytes = new Uint8Array(w.source.buffer);
  const stored = w.dtype === 'q8_0' ? 34 : 18;
  for (const n of range(Math.ceil(w.rows / 16) * 16)) {
    for (const g of range(groups)) {
      const own = bytes.subarray((n * groups + g) * stored, (n * groups + g + 1) * stored);
      const begin = Math.floor(n / 16) * panel;
      for (const i of range(stored - 2)) {
        const zero = w.dtype === 'q8_0' ? 0 : 0x88;
        const byte = n < w.rows ? at(own, 2 + i) : zero;
        const to = begin + scales + g * size + Math.floor(i / 4) * 64 + (n % 16) * 4 + (i % 4);
        out[to] = w.dtype === 'q8_0' ? byte ^ 128 : byte;
      }
      if (n < w.rows) out.set(own.subarray(0, 2), begin + (g * 16 + (n % 16)) * 2);
    }
  }
  return out;
}

it.runIf(levels.length > 0).each(QUANTISED)('%s is packed as stated, in one call or in pieces', (form) => {
  for (const [rows, cols] of [
    [1, 1],
    [16, 32],
    [17, 40],
    [33, 96],
    [50, 260],
  ] as const) {
    // prettier-ignore
    const w = quantised(new Random(rows), form, rows, cols);
    for (const chunk of [rows, 1, 7]) {
      expectSameBytes(ops.pack('oracle', 1, { w: { ...w, chunk } }), panels(w), `${rows} x ${cols} by ${chunk}`);
    }
  }
});

it.runIf(levels.length > 0).each(QUANTISED)('%s: rows of a table are scale times integer, exactly', (form) => {
  const table = quantised(new Random(3), form, 40, 70);
  const token = new Random(4).integers(20, 0, 40);
  const rows = Array.from(token, (n) =>
    groupsOf(table, n).flatMap(({ scale, weights }) => weights.map((q) => q * scale)),
  );
  const expected = Float32Array.from(rows.flatMap((row) => row.slice(0, 70)));
  expectSameBytes(
    ops.embed('oracle', 1, { table, token }).map((v) => v + 0),
    expected.map((v) => v + 0),
  ); // no -0
});

it.runIf(levels.length > 0).each(QUANTISED)('%s: the plain loops are within the bound of the contract', (form) => {
  [...SIZES, ...LONG].forEach((c, seed) => {
    const args = argsOf(form, c, seed);
    expectWithin(dense(ops.matmul('oracle', 1, args), args), reference(args), JSON.stringify(c));
  });
});

it.each(levels)('%s gives the bits of the plain loops, with one and two threads', (level) => {
  for (const form of QUANTISED) {
    [...SIZES, ...LONG].forEach((c, seed) => {
      const args = argsOf(form, c, seed);
      const expected = dense(ops.matmul('oracle', 1, args), args);
      for (const threads of [1, 2]) {
        expectSameBytes(dense(ops.matmul(level, threads, args), args), expected, `${form} ${JSON.stringify(c)}`);
      }
    });
  }
});

it.each(levels)('%s: the largest products are exact, and bytes of any value are taken', (level) => {
  for (const form of QUANTISED) {
    for (const k of [32, 64, 100, 1000]) {
      const random = new Random(k);
      const w = anyBytes(random, form, 40, k);
      const one = Float32Array.from({ length: 3 * k }, (_, i) => (i < k ? 1 : i < 2 * k ? -1 : random.pick([1, -1])));
      for (const x of [one, random.floats(3 * k), one.map((v) => v * 2 ** -40)]) {
        const args = { x, w, rows: 3 };
        expectSameBytes(ops.matmul(level, 1, args), ops.matmul('oracle', 1, args), `${form}, k ${k}`);
        if (level === 'oracle') expectWithin(ops.matmul(level, 1, args), reference(args));
      }
    }
  }
});

it.each(levels)(
  '%s: groups of zeros and of next to nothing are zero; what is not finite makes its row NaN',
  (level) => {
    for (const form of QUANTISED) {
      const w = quantised(new Random(7), form, 33, 70);
      const tiny = new Float32Array(70).fill(2 ** -101);
      expect(ops.matmul(level, 1, { x: new Float32Array(70), w, rows: 1 }).every((y) => y === 0)).toBe(true);
      expect(ops.matmul(level, 1, { x: tiny, w, rows: 1 }).every((y) => y === 0)).toBe(true);
      expect(ops.matmul(level, 1, { x: tiny.fill(2 ** -100), w, rows: 1 }).some((y) => y !== 0)).toBe(true);
      for (const value of [NaN, Infinity, -Infinity]) {
        const x = new Random(8).floats(3 * 70);
        x[70 + 69] = value;
        const y = ops.matmul(level, 1, { x, w, rows: 3 });
        expect(rowOf(y, 33, 1).every(Number.isNaN)).toBe(true);
        expect([...rowOf(y, 33, 0), ...rowOf(y, 33, 2)].some(Number.isNaN)).toBe(false);
      }
    }
  },
);

const invariant: RowOp[] = QUANTISED.flatMap((form) => [matmulOp(form, 67, 43), matmulOp(form, 200, 300)]);

it.each(levels)('%s: a row has the same bits in every launch of 1 to 64 rows', (level) => {
  for (const op of invariant) expect(rowFaults(op, level), op.name).toEqual([]);
});

/** All ops of a drafter on one set of matrices. */
function drafted(level: string, threads: number, form: 'q8_0' | 'q4_0', rows: number): Uint8Array {
  const random = new Random(rows);
  const [hidden, exit] = [100, 72];
  const matrix = (n: number, k: number): MatrixArg => quantised(random, form, n, k);
  const s = random.floats(rows * hidden);
  const parts: Uint8Array[] = [];
  for (const cell of ['elman', 'gru'] as const) {
    const gates = cell === 'gru' ? 3 * hidden : hidden;
    const args: CellArgs = {
      ...{ cell, rows, hidden, s, w: matrix(gates, hidden), u: matrix(gates, hidden) },
      ...{ wBias: random.floats(gates), uBias: random.floats(gates) },
      ...{ table: matrix(50, hidden), token: random.integers(rows, 0, 50) },
    };
    parts.push(joinBytes(ops.cell(level, threads, args)));
  }
  const h = random.floats(hidden);
  const z = ops.mix(level, threads, { h, s, projection: matrix(exit, 2 * hidden), rows, hidden, exit });
  parts.push(joinBytes(z), joinBytes(ops.residual(level, threads, { z, a: matrix(exit, exit), rows, exit })));
  const head = matrix(300, exit);
  const top = ops.headTop(level, threads, { z, head, rows, top: 7 });
  const logits = ops.matmul(level, threads, { x: z, w: head, rows });
  for (const row of range(rows)) expect(at(top.logit, row * 7)).toBe(Math.max(...rowOf(logits, 300, row)));
  return joinBytes(...parts, top.token, top.logit);
}

it.runIf(levels.length > 0)('vector levels agree on the drafter, whose matrices they take in every op', () => {
  const vector = levels.filter((level) => level.startsWith('avx'));
  for (const form of QUANTISED) {
    for (const rows of [1, 3, 16, 40]) {
      const first = drafted(vector[0] ?? 'base', 1, form, rows);
      for (const level of vector) expectSameBytes(drafted(level, 2, form, rows), first, `${level} ${form} ${rows}`);
    }
  }
});

it.each(levels)('%s: the drafter is close to that of the plain loops', (level) => {
  for (const form of QUANTISED) {
    const floats = (of: string): Float32Array =>
      new Float32Array(drafted(of, 1, form, 5).slice(0, 4 * 5 * 100 * 2).buffer);
    const [y, expected] = [floats(level), floats('oracle')];
    expect(Math.max(...y.map((v, i) => Math.abs(v - at(expected, i))))).toBeLessThan(1e-5);
  }
});
