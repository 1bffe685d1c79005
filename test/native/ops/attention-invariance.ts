/** The check that the bits of one query's attention do not depend on what shares the launch, or on where keys lie. */
import { at, range, rowOf } from '../../kit/arrays.js';
import { differingBytes } from '../../kit/compare.js';
import { NEIGHBOURS, surround } from '../../kit/poison.js';
import { Random } from '../../kit/random.js';
import type { AttentionCase } from './cases.js';
import { describeLaunch, type Launch, launches } from './invariance.js';
import { ops, withWorkspace } from './levels.js';
import { batchOf, BLOCK, cacheDtype, inertRow, Paged, plainRow, prefillRow, type Row } from './paged.js';

/** How the keys of the target row are laid out and reached. */
export interface View {
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
  const slots = Math.max(view.slots.length + 12, ...view.slots, ...view.others) + 8;
  const blocks = Math.ceil(slots / BLOCK) + 2;
  const paged = new Paged(kvHeads, headDim, blocks, random, cacheDtype(headDim / 8));
  const other = random.uniform() < 0.5 ? paged.sequence(24) : -1;
  const sequence = paged.sequence(slots);
  view.slots.forEach((slot, j) => {
    paged.write(sequence, slot, at(path, j));
  });
  for (const slot of view.others) paged.write(sequence, slot, launch.kind.fill(random, paged.slotFloats()));
  if (other >= 0) for (const slot of range(24)) paged.write(other, slot, launch.kind.fill(random, paged.slotFloats()));
  const rows = range(launch.rows).map((r): Row => {
    if (r === launch.at) return { sequence, context: view.context, slots: view.slots };
    if (other >= 0 && random.uniform() < 0.3) return plainRow(other, random.integer(0, 24));
    if (random.uniform() < 0.1) return inertRow(sequence);
    return { ...view.neighbour(random), sequence };
  });
  const width = (heads + 2 * kvHeads) * headDim;
  const qkv = surround(q, launch.at, launch.rows, launch.kind.fill(random, launch.rows * width));
  const args = { qkv, kv: paged.kv, batch: batchOf(paged, rows), heads, scale: 0.3 };
  const y = withWorkspace(launch.workspace, () => ops.attention(level, launch.threads, args));
  return rowOf(y, heads * headDim, launch.at);
}

const ALONE: Launch = { rows: 1, at: 0, threads: 1, kind: at(NEIGHBOURS, 0), workspace: null };

/** Every launch in which the bits of one query's result differ from those of plain decoding. */
export function attentionFaults(
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
    if (differingBytes(y, plain) > 0) faults.push(`${view.name}, ${describeLaunch(launch)}`);
  };
  for (const launch of sizes.flatMap(launches)) {
    // A tree of the drafter is not deep; shorter sequences may be all tree.
    const context = random.pick([
      position < 50 ? 0 : position - 40,
      Math.max(0, position - random.integer(0, 5)),
      position,
    ]);
    const view = random.pick([
      chainView('plain', position, position),
      chainView('prompt', position, position + 1),
      treeView(random, position, context),
    ]);
    check(spoil(view), launch);
  }
  return faults;
}
