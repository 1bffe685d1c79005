/** Faults planted in small kernels (native/testing/simt/planted_ops.cu): what the tests of kernels must be able to see. */
import { describe, expect, it } from 'vitest';

import { at, range } from '../../kit/arrays.js';
import { randomMatrix } from '../../kit/bf16.js';
import { worstRatio } from '../../kit/compare.js';
import { Random } from '../../kit/random.js';
import { attentionFaults } from './attention-invariance.js';
import { argmaxFaults } from './cases.js';
import { launches, matmulOp, rowFaults } from './invariance.js';
import { ops, PROPERTIES, withWorkspace } from './levels.js';
import { maskedHeads, maskFaults } from './masked-heads.js';
import { batchOf, cacheDtype, mixedBatch } from './paged.js';
import * as paged from './paged.js';
import * as reference from './reference.js';

const planted = (fault: string): string => `cuda:planted-${fault}`;

describe.skipIf(ops.missing('cuda:host') !== null)('faults planted in kernels', () => {
  const args = (): Parameters<typeof ops.matmul>[2] => {
    const random = new Random(1);
    return { x: random.floats(3 * 40), w: randomMatrix(random, 'bf16', 20, 40), rows: 3 };
  };
  const op = matmulOp('bf16', 20, 200);
  const sizes = [1, 2, 3, 7, 8, 9, 17, 64, 65];

  it('a kernel without a fault passes', () => {
    expect(rowFaults(op, planted('no-fault-matmul'), sizes)).toEqual([]);
    expect(worstRatio(ops.matmul(planted('no-fault-matmul'), 1, args()), reference.matmul(args())).ratio).toBeLessThan(
      1,
    );
  });
  it('a split of K that is always the same passes', () => {
    expect(rowFaults(op, planted('fixed-split'), sizes)).toEqual([]);
  });
  it('a split of K that depends on the number of rows is noticed', () => {
    const faults = rowFaults(op, planted('split-by-rows'), sizes);
    expect(faults).toHaveLength([9, 17, 64, 65].flatMap(launches).length);
    expect(at(faults, 0)).toMatch(/^row 0 of 9 /);
  });
  it('a neighbour that leaks into a row, times zero, is noticed', () => {
    const faults = rowFaults(op, planted('leak'), sizes);
    expect(faults.filter((fault) => /beside (NaN|Inf)/.test(fault)).length).toBeGreaterThan(4);
    expect(faults.filter((fault) => /beside (random|huge)/.test(fault))).toEqual([]);
  });
  it('a sum in the order in which threads come is noticed', () => {
    const results = PROPERTIES.orders.map((order) => ops.matmul(planted('atomic-sum'), order, args()));
    expect(new Set(results.map((y) => y.join())).size).toBeGreaterThan(1);
    for (const y of results) expect(worstRatio(y, reference.matmul(args())).ratio).toBeLessThan(1);
  });
  it('a write behind a result or behind the workspace is noticed', () => {
    expect(() => ops.matmul(planted('overrun'), 1, args())).toThrow('after an allocation');
    const behind = (): unknown => ops.matmul(planted('workspace-overrun'), 1, args());
    for (const bytes of [0, 8192])
      expect(() => withWorkspace(bytes, behind)).toThrow(/out of bounds|behind its workspace/);
  });
  it('a counter that is not put back to zero is noticed', () => {
    expect(() => ops.matmul(planted('counter-left'), 1, args())).toThrow('an op left 1 counters that are not zero');
  });
  it('an op that nobody has written is an error', () => {
    const logits = Float32Array.of(1, 2);
    const one = { topK: new Int32Array(1), topP: new Float32Array(1), minP: new Float32Array(1) };
    const row = { logits, vocab: 2, temperature: new Float32Array(1), seed: new BigUint64Array(1), ...one };
    expect(() => ops.sample(planted('no-op'), 1, { ...row, position: new Int32Array(1) })).toThrow('no op "sample"');
    expect(() => ops.sample(planted('no'), 1, { ...row, position: new Int32Array(1) })).toThrow('unknown level');
  });
  it('an argmax that takes the last of equal logits is noticed', () => {
    const sample = (level: string) => (logits: Float32Array) =>
      at(
        ops.sample(level, 1, {
          ...{ logits, vocab: logits.length, temperature: new Float32Array(1), topK: new Int32Array(1) },
          ...{ topP: new Float32Array(1).fill(1), minP: new Float32Array(1), seed: new BigUint64Array(1) },
          position: new Int32Array(1),
        }),
        0,
      );
    expect(argmaxFaults(sample(planted('last-wins')))).toContain('1,3,3,2');
    expect(argmaxFaults(sample('oracle'))).toEqual([]);
  });

  const shape = { heads: 4, kvHeads: 2, headDim: 16 };
  /** The worst error over its bound, over rows of every kind. */
  const attentionRatio = (fault: string): number => {
    const random = new Random(3);
    const mixed = mixedBatch(random, shape.kvHeads, shape.headDim, cacheDtype(0));
    const qkv = random.floats(mixed.rows.length * (shape.heads + 2 * shape.kvHeads) * shape.headDim);
    const call = { qkv, kv: mixed.paged.kv, batch: batchOf(mixed.paged, mixed.rows), heads: shape.heads, scale: 0.25 };
    const expected = paged.attention(mixed.paged, mixed.rows, qkv, shape.heads, 0.25);
    return worstRatio(ops.attention(planted(fault), 1, call), expected).ratio;
  };
  it('attention without a fault passes', () => {
    expect(attentionFaults(planted('no-fault-attention'), shape, 21, range(12, 1))).toEqual([]);
    expect(attentionRatio('no-fault-attention')).toBeLessThan(1);
  });
  it('attention that sees siblings is noticed', () => {
    expect(attentionFaults(planted('no-sibling-mask'), shape, 21, range(12, 1)).length).toBeGreaterThan(4);
    expect(attentionRatio('no-sibling-mask')).toBeGreaterThan(1);
  });
  it('attention that multiplies what lies behind the context by zero is noticed', () => {
    expect(attentionFaults(planted('no-nan-guard'), shape, 21, range(12, 1)).length).toBeGreaterThan(4);
    expect(attentionRatio('no-nan-guard')).toBe(Infinity);
  });

  it.each(['mask-ignored', 'mask-of-first', 'mask-by-head-row', 'masked-in-sum'])(
    'a head with the fault %s is noticed',
    (fault) => {
      expect(maskedHeads.flatMap((c) => maskFaults(planted(fault), c)).length).toBeGreaterThan(20);
    },
  );
});
