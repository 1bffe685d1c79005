/** Norm, activation and rotary embedding. */
import { expect, it } from 'vitest';

import { at, joinBytes } from '../../kit/arrays.js';
import { decode, encode } from '../../kit/bf16.js';
import { type Bounded, expectSameBytes, expectSameCache, expectSameNumbers, expectWithin } from '../../kit/compare.js';
import type { NormArgs } from '../../kit/ops.js';
import { Random } from '../../kit/random.js';
import { actCases, attentionCases, describePair, FUSED, normCases, ropeCases } from './cases.js';
import { describeLevels, describeOnce, halfUnit, ops } from './levels.js';
import { batchOf, cacheDtype, mixedBatch } from './paged.js';
import * as reference from './reference.js';

describeLevels('norm', (level) => {
  const cases = normCases.flatMap(([rows, groups, dim], seed): NormArgs[] => {
    const random = new Random(seed);
    const [xStride, yStride] = [groups * dim + 3, groups * dim + (seed % 2)];
    const shape = { rows, groups, dim, eps: 1e-5, weight: random.floats(dim) };
    return [
      { ...shape, x: random.floats(rows * groups * dim) },
      { ...shape, x: random.floats(rows * xStride, 1e-4), xStride, yStride },
      { ...shape, x: random.floats((rows + 4) * xStride, 100), xStride, gather: random.integers(rows, 0, rows + 4) },
    ];
  });
  const inside = (args: NormArgs, y: Float32Array): Float32Array =>
    y.filter((_, i) => i % (args.yStride ?? args.groups * args.dim) < args.groups * args.dim);
  it('is within its bound: contiguous, strided, gathered', () => {
    for (const args of cases) {
      const expected = reference.norm(args);
      const keep = (_: number, i: number): boolean =>
        i % (args.yStride ?? args.groups * args.dim) < args.groups * args.dim;
      expectWithin(
        inside(args, ops.norm(level, 1, args)),
        { value: expected.value.filter(keep), bound: expected.bound.filter(keep) },
        JSON.stringify([args.rows, args.groups, args.dim]),
      );
    }
  });
  it('gives the same bits in place and with two threads', () => {
    for (const args of cases) {
      const y = inside(args, ops.norm(level, 1, args));
      expectSameBytes(inside(args, ops.norm(level, 2, args)), y);
      const fits = args.gather === undefined && args.xStride === undefined;
      if (fits) expectSameBytes(ops.norm(level, 1, { ...args, inPlace: true }), y);
    }
  });
  it('gives finite values for a row of zeros', () => {
    const zeros = { x: new Float32Array(24), weight: new Float32Array(24).fill(3), rows: 1, groups: 1, dim: 24 };
    expectSameNumbers(ops.norm(level, 1, { ...zeros, eps: 1e-6 }), new Float32Array(24));
  });
});

describeLevels('act', (level) => {
  it('is within its bound', () => {
    actCases.forEach(([rows, dim], seed) => {
      const gateUp = new Random(seed).floats(rows * 2 * dim, 4);
      expectWithin(ops.act(level, 1, { gateUp, rows, dim }), reference.act(gateUp, rows, dim), `${rows} x ${dim}`);
    });
  });
  it('is within its bound for gates from -1000 to 1000, where exp overflows and underflows', () => {
    const dim = 20001;
    const gateUp = new Float32Array(2 * dim).fill(1);
    for (let i = 0; i < dim; i++) gateUp[i] = i < 10000 ? (i - 5000) / 50 : (i - 15000) / 5;
    expectWithin(ops.act(level, 1, { gateUp, rows: 1, dim }), reference.act(gateUp, 1, dim));
  });
  it('gives the same bits with two threads', () => {
    actCases.forEach(([rows, dim], seed) => {
      const gateUp = new Random(seed).floats(rows * 2 * dim, 4);
      expectSameBytes(ops.act(level, 2, { gateUp, rows, dim }), ops.act(level, 1, { gateUp, rows, dim }));
    });
  });
});

describeOnce('rope table', () => {
  it.each(ropeCases)('$scaling, head size $headDim', (args) => {
    expectWithin(ops.ropeTable('oracle', 1, args), reference.ropeTable(args));
  });
  it('has the values of Hugging Face transformers for Llama 3.1 at position 1', () => {
    // rope_scaling of Llama-3.1-8B: frequency 64 - 1 is divided by 8; frequency 0 is kept.
    const args = ropeCases.find((c) => c.scaling === 'llama3');
    if (args === undefined) throw new Error('no case');
    const table = ops.ropeTable('oracle', 1, args);
    const row = table.subarray(args.headDim, 2 * args.headDim);
    expect(at(row, 1)).toBeCloseTo(Math.sin(1), 6);
    expect(at(row, args.headDim - 1)).toBeCloseTo(500000 ** (-126 / 128) / 8, 12);
  });
});

describeLevels('rope', (level) => {
  it('rotates q and k by position and appends k and v at the slot of the row', () => {
    attentionCases.forEach(({ heads, kvHeads, headDim: dim }, seed) => {
      const random = new Random(seed);
      const dtype = cacheDtype(seed);
      const { paged, rows } = mixedBatch(random, kvHeads, dim, dtype);
      const half = dim / 2;
      paged.kv.k.fill(NaN);
      paged.kv.v.fill(NaN);
      const width = (heads + 2 * kvHeads) * dim;
      const qkv = random.floats(rows.length * width);
      const cosSin = ops.ropeTable('oracle', 1, { scaling: 'none', theta: 10000, headDim: dim, positions: 70 });
      const batch = batchOf(paged, rows);
      const args = { qkv, cosSin, kv: paged.kv, batch, heads };
      const result = ops.rope(level, 1, args);
      const shared = ops.rope(level, 2, args);
      expectSameBytes(joinBytes(shared.qkv, shared.k, shared.v), joinBytes(result.qkv, result.k, result.v));

      const rotated: Bounded = reference.bounded(qkv.length);
      qkv.forEach((x, n) => {
        const [row, head, i] = [Math.floor(n / width), Math.floor((n % width) / dim), n % dim];
        const position = at(batch.position, row);
        const [c, s] = [0, 1].map((j) => at(cosSin, (position * half + (i % half)) * 2 + j));
        const other = at(qkv, i < half ? n + half : n - half);
        const turn = (i < half ? -1 : 1) * other * (s ?? 0);
        const isValue = head >= heads + kvHeads;
        rotated.value[n] = isValue ? x : x * (c ?? 0) + turn;
        rotated.bound[n] = isValue ? 0 : 2 * reference.U * (Math.abs(x * (c ?? 0)) + Math.abs(turn));
      });
      // Of qkv only q is specified afterwards; k and v are judged in the cache.
      const q = (_: number, n: number): boolean => n % width < heads * dim;
      expectWithin(result.qkv.filter(q), { value: rotated.value.filter(q), bound: rotated.bound.filter(q) });

      rows.forEach((row, r) => {
        const written = paged.read(row.sequence, at(batch.slot, r), result);
        const kv = [r * width + heads * dim, (r + 1) * width] as const;
        // The cache holds it rounded; values, which are not rotated, exactly so.
        const [value, bound] = [rotated.value.slice(...kv), rotated.bound.slice(...kv)];
        const { relative, absolute } = halfUnit(dtype);
        value.forEach((x, i) => {
          if (i < kvHeads * dim) bound[i] = at(bound, i) + relative * (Math.abs(x) + at(bound, i)) + absolute;
          else value[i] = at(decode(dtype, encode(dtype, Float32Array.of(x))), 0);
        });
        expectWithin(written, { value, bound }, `row ${r}`);
        paged.write(row.sequence, at(batch.slot, r), written);
      });
      // Nothing else moved, and the padding of v is zero where a row was written.
      expectSameCache(result, paged.untouched());
    });
  });
});

describePair('avx2 and avx512 agree bit for bit', () => {
  it('act', () => {
    actCases.forEach(([rows, dim], seed) => {
      const gateUp = new Random(seed).floats(rows * 2 * dim, 20);
      const [a, b] = FUSED.map((level) => ops.act(level, 1, { gateUp, rows, dim }));
      expectSameBytes(a ?? new Float32Array(), b ?? new Float32Array(1));
    });
  });
});
