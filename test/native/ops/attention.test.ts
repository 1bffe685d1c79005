import { expect, it } from 'vitest';

import { at, range } from '../../kit/arrays.js';
import { type Bounded, expectSameBytes, expectWithin } from '../../kit/compare.js';
import type { AttentionArgs } from '../../kit/ops.js';
import { Random } from '../../kit/random.js';
import { attentionFaults, type View } from './attention-invariance.js';
import { type AttentionCase, attentionCases, describePair, FUSED } from './cases.js';
import { launches } from './invariance.js';
import { describeLevels, KERNELS, ops, PROPERTIES, withWorkspace } from './levels.js';
import * as reference from './paged.js';
import { bounded, chain } from './reference.js';
import { batchOf, cacheDtype, longBatch, mixedBatch, type Mixed, Paged, type Row } from './paged.js';

type Args = AttentionArgs & { paged: Paged; all: Row[] };

function argsOf(c: AttentionCase, random: Random, { paged, rows }: Mixed): Args {
  const qkv = random.floats(rows.length * (c.heads + 2 * c.kvHeads) * c.headDim);
  const scale = Math.fround(1 / Math.sqrt(c.headDim));
  return { qkv, kv: paged.kv, batch: batchOf(paged, rows), heads: c.heads, scale, paged, all: rows };
}

function mixedArgs(c: AttentionCase, seed: number): Args {
  const random = new Random(seed);
  return argsOf(c, random, mixedBatch(random, c.kvHeads, c.headDim, cacheDtype(seed)));
}

/** Contexts that end before, at and behind the borders of blocks and of larger chunks of positions. */
const CONTEXTS = [[[1, 15, 16, 17]], [[63, 64, 65]], [[127, 128, 129]], [[255, 256, 257]], [[300]], [[511, 515]]];

function longArgs(contexts: number[], seed: number): Args {
  const random = new Random(seed);
  const c = { heads: 4, kvHeads: 2, headDim: 16 };
  return argsOf(c, random, longBatch(random, contexts, c.kvHeads, c.headDim, cacheDtype(seed)));
}

const expectedOf = (args: Args): Bounded => reference.attention(args.paged, args.all, args.qkv, args.heads, args.scale);

/** The mean of the values that each row sees: with equal scores every weight is 1, exactly. */
function means({ paged, all, heads }: Args): Bounded {
  const { kvHeads, headDim: dim } = paged.kv;
  const out = bounded(all.length * heads * dim);
  all.forEach((row, r) => {
    const entries = row.slots.map((slot) => paged.read(row.sequence, slot));
    const count = entries.length;
    for (let n = 0; n < heads * dim; n++) {
      const kvHead = Math.floor(Math.floor(n / dim) / (heads / kvHeads));
      const values = entries.map((entry) => at(entry, (kvHeads + kvHead) * dim + (n % dim)));
      const magnitude = values.reduce((sum, x) => sum + Math.abs(x), 0) / count;
      out.value[r * heads * dim + n] = values.reduce((sum, x) => sum + x, 0) / count;
      out.bound[r * heads * dim + n] = chain(count, 4) * magnitude;
    }
  });
  return out;
}

describeLevels('attention', (level) => {
  it.each(attentionCases)('$heads heads, $kvHeads KV heads of $headDim, against float64', (c) => {
    const args = mixedArgs(c, c.headDim + c.heads);
    const y = ops.attention(level, 1, args);
    expectWithin(y, expectedOf(args));
    expectSameBytes(ops.attention(level, 2, args), y, 'with two threads');
    expectSameBytes(ops.attention(level, 1, { ...args, maxPositions: 500 }), y, 'with more scratch');
    for (const workspace of PROPERTIES.workspaces) {
      expectSameBytes(
        withWorkspace(workspace, () => ops.attention(level, 1, args)),
        y,
        `workspace ${workspace ?? 'as given'}`,
      );
    }
  });
  it.each(CONTEXTS)('behind %j positions, against float64', (contexts) => {
    const args = longArgs(contexts, contexts.length);
    expectWithin(ops.attention(level, 1, args), expectedOf(args));
  });
  it.each(CONTEXTS)('behind %j positions is the mean of the values where all scores are equal', (contexts) => {
    const args = { ...longArgs(contexts, 2), scale: 0 };
    expectWithin(ops.attention(level, 1, args), means(args));
  });
  it('is within its bound for large scores, where most weights vanish', () => {
    const args = { ...mixedArgs({ heads: 2, kvHeads: 1, headDim: 64 }, 3), scale: 20 };
    expectWithin(ops.attention(level, 1, args), expectedOf(args));
  });
});

describePair('attention', () => {
  it.each(attentionCases)('avx2 and avx512 agree bit for bit: $heads, $kvHeads, $headDim', (c) => {
    const args = mixedArgs(c, 7);
    const [a, b] = FUSED.map((level) => ops.attention(level, 1, args));
    expectSameBytes(a ?? new Float32Array(), b ?? new Float32Array(1));
  });
});

describeLevels('attention row invariance', (level) => {
  it('holds for every number of rows from 1 to 64', () => {
    const sizes = [...range(64, 1), ...PROPERTIES.largeLaunches];
    expect(attentionFaults(level, { heads: 8, kvHeads: 2, headDim: 24 }, 21, sizes)).toEqual([]);
  });
  it.each([63, 64, 65, 127, 128, 255, 256, 257, 300, 515])('holds at position %d', (position) => {
    expect(attentionFaults(level, { heads: 4, kvHeads: 2, headDim: 16 }, position, [1, 3, 9])).toEqual([]);
  });
  it.each([0, 1, 14, 15, 16, 17, 31, 47])('holds at position %d', (position) => {
    expect(attentionFaults(level, { heads: 6, kvHeads: 2, headDim: 24 }, position, [1, 2, 3, 5, 8, 17])).toEqual([]);
  });
  it.each(attentionCases)('holds for $heads heads, $kvHeads KV heads of $headDim', (shape) => {
    expect(attentionFaults(level, shape, 19, [1, 4, 7])).toEqual([]);
  });
  if (KERNELS)
    it('holds behind position 8192, from where splits are longer', () => {
      expect(attentionFaults(level, { heads: 4, kvHeads: 2, headDim: 16 }, 9300, [3])).toEqual([]);
    });
  it.each([
    { heads: 64, kvHeads: 1, headDim: 256 },
    { heads: 37, kvHeads: 1, headDim: 150 },
    { heads: 48, kvHeads: 1, headDim: 128 },
  ])('holds for a group of $heads heads of $headDim', (shape) => {
    expect(attentionFaults(level, shape, 40, [1, 2, 5])).toEqual([]);
  });
  if (KERNELS)
    it('holds where the workspace has room for some of the rows at a time', () => {
      const [heads, kvHeads, headDim, context, count] = [4, 2, 16, 520, 150];
      const random = new Random(5);
      const paged = new Paged(kvHeads, headDim, 48, random);
      const sequence = paged.sequence(context + count);
      for (const slot of range(context + count)) paged.write(sequence, slot, random.floats(paged.slotFloats()));
      const paths = [[...range(context), context]];
      while (paths.length < count) paths.push([...random.pick(paths.slice(-20)), context + paths.length]);
      const rows = paths.map((slots): Row => ({ sequence, context, slots }));
      const qkv = random.floats(count * (heads + 2 * kvHeads) * headDim);
      const args = { qkv, kv: paged.kv, batch: batchOf(paged, rows), heads, scale: 0.3 };
      const y = ops.attention(level, 1, args);
      const rowBytes = heads * 3 * (8 + 4 * headDim);
      for (const bytes of [64 * rowBytes, 128 * rowBytes + 4]) {
        expectSameBytes(
          withWorkspace(bytes, () => ops.attention(level, 2, args)),
          y,
          `workspace ${bytes}`,
        );
      }
    });
  it('control: a sibling that is not masked is noticed', () => {
    const unmasked = (view: View): View => ({
      ...view,
      slots: [...view.slots, (view.slots.at(-1) ?? 0) + 1],
      others: [],
    });
    const faults = attentionFaults(level, { heads: 4, kvHeads: 2, headDim: 16 }, 21, [1, 2, 3], unmasked);
    expect(faults).toHaveLength([1, 2, 3].flatMap(launches).length);
  });
});
