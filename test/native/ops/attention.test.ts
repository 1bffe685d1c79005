import { describe, expect, it } from 'vitest';

import { at, range, rowOf } from '../../kit/arrays.js';
import { differingBytes, expectSameBytes, expectWithin } from '../../kit/compare.js';
import type { AttentionArgs } from '../../kit/ops.js';
import { NEIGHBOURS, surround } from '../../kit/poison.js';
import { Random } from '../../kit/random.js';
import { type AttentionCase, attentionCases, FUSED, LEVELS, ops, PAIR } from './cases.js';
import * as reference from './paged.js';
import { batchOf, mixedBatch, Paged, plainRow, prefillRow, type Row } from './paged.js';

function mixedArgs(c: AttentionCase, seed: number): AttentionArgs & { paged: Paged; all: Row[] } {
  const random = new Random(seed);
  const { paged, rows } = mixedBatch(random, c.kvHeads, c.headDim);
  const qkv = random.floats(rows.length * (c.heads + 2 * c.kvHeads) * c.headDim);
  const scale = Math.fround(1 / Math.sqrt(c.headDim));
  return { qkv, kv: paged.kv, batch: batchOf(paged, rows), heads: c.heads, scale, paged, all: rows };
}

describe.each(LEVELS)('attention %s', (level) => {
  it.each(attentionCases)('$heads heads, $kvHeads KV heads of $headDim, against float64', (c) => {
    const args = mixedArgs(c, c.headDim + c.heads);
    const expected = reference.attention(args.paged, args.all, args.qkv, args.heads, args.scale);
    const y = ops.attention(level, 1, args);
    expectWithin(y, expected);
    expectSameBytes(ops.attention(level, 2, args), y, 'with two threads');
    expectSameBytes(ops.attention(level, 1, { ...args, maxPositions: 500 }), y, 'with more scratch');
  });
  it('is within its bound for large scores, where most weights vanish', () => {
    const args = { ...mixedArgs({ heads: 2, kvHeads: 1, headDim: 64 }, 3), scale: 20 };
    expectWithin(
      ops.attention(level, 1, args),
      reference.attention(args.paged, args.all, args.qkv, args.heads, args.scale),
    );
  });
});

describe.runIf(PAIR)('attention', () => {
  it.each(attentionCases)('avx2 and avx512 agree bit for bit: $heads, $kvHeads, $headDim', (c) => {
    const args = mixedArgs(c, 7);
    const [a, b] = FUSED.map((level) => ops.attention(level, 1, args));
    expectSameBytes(a ?? new Float32Array(), b ?? new Float32Array(1));
  });
});

/** How the keys of the target row are laid out and reached. */
interface View {
  name: string;
  /** Slot of position j. */
  slots: number[];
  context: number;
  /** Rows of the same sequence that may be its neighbours. */
  neighbour(random: Random): { context: number; slots: number[] };
  /** Slots beside the path that hold a neighbour's keys. */
  others: number[];
}

function chainView(name: string, position: number, context: number): View {
  const most = position + 12;
  return {
    name,
    slots: range(position + 1),
    context,
    neighbour: (random) => {
      const p = random.integer(0, most);
      return random.uniform() < 0.5 ? plainRow(0, p) : prefillRow(0, p);
    },
    others: range(most - position, position + 1),
  };
}

/** Positions from `context` on lie in ascending slots with siblings between them. */
function treeView(random: Random, position: number, context: number): View {
  const slots = range(context);
  while (slots.length <= position) slots.push(Math.max(context, (slots.at(-1) ?? -1) + 1) + random.integer(0, 4));
  const last = at(slots, position) + 6;
  const others = range(last - context, context).filter((slot) => !slots.includes(slot));
  return {
    name: `tree after ${context}`,
    slots,
    context,
    neighbour: (r) => {
      const tail = range(last - context, context).filter(() => r.uniform() < 0.3);
      return { context, slots: [...range(context), ...(tail.length === 0 ? [context] : tail)] };
    },
    others,
  };
}

interface Launch {
  rows: number;
  at: number;
  threads: number;
  kind: (typeof NEIGHBOURS)[number];
}

/** The target's result in one launch: `path` holds K and V of its positions, `q` its query. */
function attend(
  level: string,
  shape: AttentionCase,
  random: Random,
  view: View,
  launch: Launch,
  q: Float32Array,
  path: Float32Array[],
): Float32Array {
  const { heads, kvHeads, headDim } = shape;
  const paged = new Paged(kvHeads, headDim, 12, random);
  const other = random.uniform() < 0.5 ? paged.sequence(24) : -1;
  const sequence = paged.sequence(160);
  view.slots.forEach((slot, j) => {
    paged.write(sequence, slot, at(path, j));
  });
  for (const slot of view.others) paged.write(sequence, slot, launch.kind.fill(random, paged.slotFloats()));
  if (other >= 0) for (const slot of range(24)) paged.write(other, slot, launch.kind.fill(random, paged.slotFloats()));
  const rows = range(launch.rows).map((r): Row => {
    if (r === launch.at) return { sequence, context: view.context, slots: view.slots };
    if (other >= 0 && random.uniform() < 0.3) return plainRow(other, random.integer(0, 24));
    return { ...view.neighbour(random), sequence };
  });
  const width = (heads + 2 * kvHeads) * headDim;
  const qkv = surround(q, launch.at, launch.rows, launch.kind.fill(random, launch.rows * width));
  const y = ops.attention(level, launch.threads, {
    qkv,
    kv: paged.kv,
    batch: batchOf(paged, rows),
    heads,
    scale: 0.3,
  });
  return rowOf(y, heads * headDim, launch.at);
}

const ALONE: Launch = { rows: 1, at: 0, threads: 1, kind: NEIGHBOURS[0] ?? { name: '', fill: (r, n) => r.floats(n) } };

/** Every launch in which the bits of one query's result differ from those of plain decoding. */
function attentionFaults(
  level: string,
  shape: AttentionCase,
  position: number,
  sizes: number[],
  spoil: (view: View) => View = (view) => view,
): string[] {
  const random = new Random(position * 100 + shape.headDim);
  const { heads, kvHeads, headDim } = shape;
  const path = range(position + 2).map(() => random.floats(2 * kvHeads * headDim));
  const q = random.floats((heads + 2 * kvHeads) * headDim);
  const plain = attend(level, shape, random, chainView('plain', position, position), ALONE, q, path);
  const faults: string[] = [];
  const check = (view: View, launch: Launch): void => {
    const y = attend(level, shape, random, view, launch, q, path);
    const { rows, threads, kind } = launch;
    if (differingBytes(y, plain) > 0) faults.push(`${view.name}, ${rows} rows, ${threads} threads, ${kind.name}`);
  };
  for (const rows of sizes) {
    for (const where of new Set([0, Math.floor(rows / 2), rows - 1])) {
      for (const kind of NEIGHBOURS) {
        const context = random.pick([0, Math.max(0, position - random.integer(0, 5)), position]);
        const view = random.pick([
          chainView('plain', position, position),
          chainView('prompt', position, position + 1),
          treeView(random, position, context),
        ]);
        check(spoil(view), { rows, at: where, threads: 1 + (rows % 2), kind });
      }
    }
  }
  return faults;
}

describe.each(LEVELS)('attention row invariance %s', (level) => {
  it('holds for every number of rows from 1 to 64', () => {
    expect(attentionFaults(level, { heads: 8, kvHeads: 2, headDim: 24 }, 21, range(64, 1))).toEqual([]);
  });
  it.each([0, 1, 14, 15, 16, 17, 31, 47])('holds at position %d', (position) => {
    expect(attentionFaults(level, { heads: 6, kvHeads: 2, headDim: 24 }, position, [1, 2, 3, 5, 8, 17])).toEqual([]);
  });
  it.each(attentionCases)('holds for $heads heads, $kvHeads KV heads of $headDim', (shape) => {
    expect(attentionFaults(level, shape, 19, [1, 4, 7])).toEqual([]);
  });
  it('control: a sibling that is not masked is noticed', () => {
    const unmasked = (view: View): View => ({
      ...view,
      slots: [...view.slots, (view.slots.at(-1) ?? 0) + 1],
      others: [],
    });
    const faults = attentionFaults(level, { heads: 4, kvHeads: 2, headDim: 16 }, 21, [1, 2, 3], unmasked);
    expect(faults).toHaveLength(4 * (1 + 2 + 3));
  });
});
