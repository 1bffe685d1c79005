import { describe, expect, it } from 'vitest';

import { at, range } from '../../kit/arrays.js';
import { decode, encode, fromF16, randomMatrix, toBf16, toF16 } from '../../kit/bf16.js';
import { differingBytes, expectSameBytes, expectSameNumbers, expectWithin } from '../../kit/compare.js';
import type { MatmulArgs, MatrixArg } from '../../kit/ops.js';
import { Random } from '../../kit/random.js';
import { DTYPES, FINEST, FUSED, type MatmulCase, matmulCases } from './cases.js';
import { describeLevels, describeOnce, KERNELS, ops, PROPERTIES, withWorkspace } from './levels.js';
import * as reference from './reference.js';

const SHAPES: [number, number][] = [
  [1, 1],
  [15, 3],
  [16, 8],
  [17, 5],
  [100, 33],
];

/** Room for many rows, for some, and for pieces of one. */
const PACK_WORKSPACES = KERNELS ? [null, 250, 32] : [null];

/**
 * Rows, n, k that take each way through the CUDA kernels, and workspaces beside those of every op: few rows of many
 * outputs with and without slices of K; x too large to stay; every number of columns, with slices shared between
 * blocks; many rows with all slices in one block, x rounded first (two blocks of rows at a time) or not.
 */
const VARIANTS: { rows: number; n: number; k: number; workspaces?: number[] }[] = [
  { rows: 1, n: 4300, k: 512 },
  { rows: 3, n: 34000, k: 20 },
  { rows: 8, n: 20, k: 4112 },
  { rows: 13, n: 530, k: 600 },
  { rows: 20, n: 40, k: 1100 },
  { rows: 50, n: 280, k: 1100 },
  { rows: 200, n: 300, k: 130, workspaces: [40_000] },
  { rows: 150, n: 300, k: 1100, workspaces: [300_000] },
  { rows: 200, n: 300, k: 40 },
  { rows: 8200, n: 16, k: 130 },
];

/** The layouts of base/tensor.h, element by element: panels on the CPU, fragments of matrix instructions in CUDA. */
const packed = KERNELS ? fragments : panels;

function fragments(w: MatrixArg): Uint8Array {
  const tiles = Math.ceil(w.cols / 16);
  const out = new Uint16Array(Math.ceil(w.rows / 16) * tiles * 256);
  for (let n = 0; n < w.rows; n++) {
    for (let k = 0; k < w.cols; k++) {
      const tile = Math.floor(n / 16) * tiles + Math.floor(k / 16);
      const lane = (n % 8) * 4 + Math.floor((k % 8) / 2);
      const register = Math.floor((n % 16) / 8) + 2 * Math.floor((k % 16) / 8);
      out[tile * 256 + lane * 8 + register * 2 + (k % 2)] = at(w.source, n * w.cols + k);
    }
  }
  return new Uint8Array(out.buffer);
}

function panels(w: MatrixArg): Uint8Array {
  const count = Math.ceil(w.rows / 16) * w.cols * 16;
  const out = w.dtype === 'f32' ? new Float32Array(count) : new Uint16Array(count);
  for (let n = 0; n < w.rows; n++) {
    for (let k = 0; k < w.cols; k++) {
      out[Math.floor(n / 16) * w.cols * 16 + k * 16 + (n % 16)] = at(w.source, n * w.cols + k);
    }
  }
  return new Uint8Array(out.buffer);
}

function matmulArgs(c: MatmulCase, random: Random): MatmulArgs {
  const [xStride, yStride] = [c.k + c.gap, c.n + c.gap];
  return {
    x: random.floats(c.rows * xStride),
    w: randomMatrix(random, c.dtype, c.n, c.k),
    rows: c.rows,
    xStride,
    yStride,
    ...(c.bias ? { bias: random.floats(c.n) } : {}),
    ...(c.residual === 'none' ? {} : { residual: random.floats(c.rows * yStride) }),
    residualInPlace: c.residual === 'in place',
  };
}

/** y without the gaps between rows. */
function dense(y: Float32Array, c: MatmulCase): Float32Array {
  return Float32Array.from({ length: c.rows * c.n }, (_, i) => at(y, Math.floor(i / c.n) * (c.n + c.gap) + (i % c.n)));
}

describeOnce('16-bit floats of the test kit', () => {
  it('convert f16 there and back for every pattern', () => {
    for (let half = 0; half < 0x10000; half++) {
      const value = fromF16(half);
      if (!Number.isNaN(value)) expect(toF16(value)).toBe(half);
    }
  });
  it('round to nearest, ties to even', () => {
    expect([1 + 2 ** -11, 1 + 3 * 2 ** -11, 2 ** -25, 65519, 65520].map(toF16)).toEqual([
      0x3c00, 0x3c02, 0, 0x7bff, 0x7c00,
    ]);
    expect([1 + 2 ** -8, 1 + 3 * 2 ** -8, -1.5].map(toBf16)).toEqual([0x3f80, 0x3f82, 0xbfc0]);
  });
});

describeLevels('pack', (level) => {
  it.each(DTYPES)('%s has its layout with zero padding, in one call or in pieces', (dtype) => {
    for (const [rows, cols] of SHAPES) {
      const w = randomMatrix(new Random(rows), dtype, rows, cols);
      for (const chunk of [rows, 1, 7]) {
        for (const workspace of PACK_WORKSPACES) {
          const bytes = withWorkspace(workspace, () => ops.pack(level, 1, { w: { ...w, chunk } }));
          expectSameBytes(bytes, packed(w), `${rows} x ${cols} by ${chunk}, workspace ${workspace ?? 'as given'}`);
        }
      }
    }
  });
});

describeLevels('embed', (level) => {
  it.each(DTYPES)('%s gathers exactly', (dtype) => {
    for (const [rows, cols] of SHAPES) {
      const random = new Random(rows);
      const table = randomMatrix(random, dtype, rows, cols);
      const token = random.integers(20, 0, rows);
      const plain = decode(dtype, table.source);
      const expected = Array.from(token).flatMap((t) => Array.from(plain.subarray(t * cols, (t + 1) * cols)));
      expectSameBytes(ops.embed(level, 2, { table, token }), Float32Array.from(expected));
    }
  });
  it('keeps every f16 pattern that is a number', () => {
    const source = Uint16Array.from(range(0x10000).filter((half) => (half & 0x7c00) !== 0x7c00));
    const table = { source, dtype: 'f16' as const, rows: source.length / 2, cols: 2 };
    const y = ops.embed(level, 1, { table, token: Int32Array.from(range(table.rows)) });
    expectSameBytes(y, Float32Array.from(source, fromF16));
  });
});

describeLevels('matmul', (level) => {
  it.each(DTYPES)('%s is within the bound of its chain', (dtype) => {
    matmulCases
      .filter((c) => c.dtype === dtype)
      .forEach((c, seed) => {
        const args = matmulArgs(c, new Random(seed));
        expectWithin(dense(ops.matmul(level, 1, args), c), reference.matmul(args), JSON.stringify(c));
      });
  });
  it('gives the same bits with one and two threads, and with little workspace', () => {
    matmulCases.forEach((c, seed) => {
      const args = matmulArgs(c, new Random(seed));
      const y = dense(ops.matmul(level, 1, args), c);
      for (const workspace of PROPERTIES.workspaces) {
        const other = withWorkspace(workspace, () => ops.matmul(level, 2, args));
        expectSameBytes(dense(other, c), y, `${JSON.stringify(c)}, workspace ${workspace ?? 'as given'}`);
      }
    });
  });
  it.each(VARIANTS)('$rows rows, $n x $k: every variant is within the bound and gives a row its bits', (variant) => {
    const { rows, n, k } = variant;
    const c = { rows, n, k, dtype: 'bf16', bias: true, residual: 'apart', gap: rows % 2 } as const;
    const args = matmulArgs(c, new Random(rows + k));
    const y = dense(ops.matmul(level, 1, args), c);
    expectWithin(y, reference.matmul(args), JSON.stringify(c));
    for (const workspace of [...PROPERTIES.workspaces, ...(variant.workspaces ?? [])]) {
      const other = withWorkspace(workspace, () => ops.matmul(level, 2, args));
      expectSameBytes(dense(other, c), y, `workspace ${workspace ?? 'as given'}`);
    }
    for (const row of [0, rows >> 1, rows - 1]) {
      const x = args.x.subarray(row * (k + c.gap), row * (k + c.gap) + k);
      const residual = args.residual?.subarray(row * (n + c.gap), row * (n + c.gap) + n);
      const alone = ops.matmul(level, 1, {
        ...args,
        x: x.slice(),
        rows: 1,
        xStride: k,
        yStride: n,
        ...(residual === undefined ? {} : { residual: residual.slice() }),
      });
      expectSameBytes(alone, y.subarray(row * n, (row + 1) * n), `row ${row}`);
    }
  });
  it('leaves the gaps between rows of y alone', () => {
    const c = { rows: 3, n: 17, k: 5, dtype: FINEST, bias: true, residual: 'in place', gap: 4 } as const;
    const args = matmulArgs(c, new Random(1));
    const y = ops.matmul(level, 1, args);
    for (const row of range(c.rows)) {
      const gap = [row * (c.n + c.gap) + c.n, (row + 1) * (c.n + c.gap)] as const;
      expectSameNumbers(y.subarray(...gap), args.residual?.subarray(...gap) ?? []);
    }
  });
  it('rejects sizes that do not fit', () => {
    const w = randomMatrix(new Random(1), FINEST, 4, 3);
    const invalid: unknown = expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' });
    const run = (args: MatmulArgs) => (): unknown => ops.matmul(level, 1, args);
    expect(run({ x: new Float32Array(5), w, rows: 2 })).toThrow(invalid);
    expect(run({ x: new Float32Array(6), w: { ...w, rows: 5 }, rows: 2 })).toThrow(invalid);
    expect(run({ x: new Float32Array(6), w, rows: 2, bias: new Float32Array(3) })).toThrow(invalid);
  });
});

describe.each(FUSED)('matmul %s', (level) => {
  it('equals the oracle bit for bit: the same chain of fused multiply-adds', () => {
    matmulCases.forEach((c, seed) => {
      const args = matmulArgs(c, new Random(seed));
      expectSameBytes(ops.matmul(level, 1, args), ops.matmul('oracle', 1, args), JSON.stringify(c));
    });
  });
  it.each(DTYPES)('%s does so for every number of rows: all tiles, blocks of K and groups of panels', (dtype) => {
    const [most, n, k] = [70, 200, 530];
    const c = { rows: most, n, k, dtype, bias: false, residual: 'none', gap: 0 } as const;
    const args = matmulArgs(c, new Random(7));
    const expected = ops.matmul('oracle', 1, args);
    for (const rows of range(most).map((row) => row + 1)) {
      const y = ops.matmul(level, 2, { ...args, x: args.x.slice(0, rows * k), rows });
      expectSameBytes(y, expected.subarray(0, rows * n), `${rows} rows`);
    }
  });
  it('does so for f16 subnormals, infinities and cancellation', () => {
    const values = [2 ** -24, -(2 ** -24), 2 ** -14, 65504, -65504, Infinity, 1, -1];
    const random = new Random(3);
    const source = encode(
      'f16',
      Float32Array.from({ length: 40 * 30 }, () => random.pick(values)),
    );
    const args: MatmulArgs = { x: random.floats(2 * 30), rows: 2, w: { source, dtype: 'f16', rows: 40, cols: 30 } };
    const [a, b] = [ops.matmul(level, 1, args), ops.matmul('oracle', 1, args)];
    // The bits of a NaN are not defined; where it is, is.
    expect(
      differingBytes(
        a.map((y) => (Number.isNaN(y) ? 0 : y)),
        b.map((y) => (Number.isNaN(y) ? 0 : y)),
      ),
    ).toBe(0);
    expectSameNumbers(Array.from(a, Number.isNaN).map(Number), Array.from(b, Number.isNaN).map(Number));
  });
});
