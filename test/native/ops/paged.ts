/** A paged cache of one layer and batches over it, as the tests build them. */
import { at, range } from '../../kit/arrays.js';
import { bounded } from './reference.js';
import * as reference from './reference.js';
import type { Bounded } from '../../kit/compare.js';
import type { BatchArg, KvArg } from '../../kit/ops.js';
import type { Random } from '../../kit/random.js';

export const BLOCK = 16;
export const padded = (headDim: number): number => Math.ceil(headDim / 16) * 16;

/** Slots that nothing was written to hold NaN. */
export class Paged {
  readonly kv: KvArg;
  private next = 0;
  private readonly order: Int32Array;
  readonly tables: number[][] = [];

  constructor(kvHeads: number, headDim: number, blocks: number, random: Random) {
    this.kv = {
      k: new Float32Array(blocks * kvHeads * headDim * BLOCK).fill(NaN),
      v: new Float32Array(blocks * kvHeads * BLOCK * padded(headDim)).fill(NaN),
      kvHeads,
      headDim,
    };
    this.order = random.permutation(blocks);
  }

  /** A new sequence with random blocks for `slots` slots. */
  sequence(slots: number): number {
    this.tables.push(range(Math.ceil(slots / BLOCK)).map(() => at(this.order, this.next++)));
    return this.tables.length - 1;
  }

  /** Where element 0 of head 0 of a slot lies in k and in v. */
  private origin(sequence: number, slot: number): { k: number; v: number } {
    const { kvHeads, headDim } = this.kv;
    const block = at(at(this.tables, sequence), Math.floor(slot / BLOCK));
    const inside = slot % BLOCK;
    return {
      k: block * kvHeads * headDim * BLOCK + inside,
      v: (block * kvHeads * BLOCK + inside) * padded(headDim),
    };
  }

  /** Keys of all heads, then values of all heads; the padding of the values becomes zero. */
  write(sequence: number, slot: number, values: Float32Array): void {
    const { k, v, kvHeads, headDim } = this.kv;
    const origin = this.origin(sequence, slot);
    const keys = kvHeads * headDim;
    for (let n = 0; n < keys; n++) k[origin.k + n * BLOCK] = at(values, n);
    for (let h = 0; h < kvHeads; h++) {
      const to = origin.v + h * BLOCK * padded(headDim);
      v.set(values.subarray(keys + h * headDim, keys + (h + 1) * headDim), to);
      v.fill(0, to + headDim, to + padded(headDim));
    }
  }
  read(sequence: number, slot: number, kv: { k: Float32Array; v: Float32Array } = this.kv): Float32Array {
    const { kvHeads, headDim } = this.kv;
    const origin = this.origin(sequence, slot);
    const keys = kvHeads * headDim;
    const values = new Float32Array(2 * keys);
    for (let n = 0; n < keys; n++) values[n] = at(kv.k, origin.k + n * BLOCK);
    for (let h = 0; h < kvHeads; h++) {
      const from = origin.v + h * BLOCK * padded(headDim);
      values.set(kv.v.subarray(from, from + headDim), keys + h * headDim);
    }
    return values;
  }
  slotFloats(): number {
    return 2 * this.kv.kvHeads * this.kv.headDim;
  }
  tableStride(): number {
    return Math.max(1, ...this.tables.map((table) => table.length));
  }
}

/** One row: the slot of each position it sees, its own last; the first `context` are slots 0, 1, ... */
export interface Row {
  sequence: number;
  context: number;
  slots: number[];
}

export const plainRow = (sequence: number, position: number): Row => ({
  sequence,
  context: position,
  slots: range(position + 1),
});
/** As a row of a prompt chunk: everything it sees counts as context. */
export const prefillRow = (sequence: number, position: number): Row => ({
  sequence,
  context: position + 1,
  slots: range(position + 1),
});

export function batchOf(paged: Paged, rows: Row[]): BatchArg {
  const tails = rows.map((row) => row.slots.slice(row.context));
  const stride = paged.tableStride();
  const begin = [0];
  for (const tail of tails) begin.push(at(begin, begin.length - 1) + tail.length);
  return {
    position: Int32Array.from(rows, (row) => row.slots.length - 1),
    slot: Int32Array.from(rows, (row) => at(row.slots, row.slots.length - 1)),
    sequence: Int32Array.from(rows, (row) => row.sequence),
    context: Int32Array.from(rows, (row) => row.context),
    tailBegin: Int32Array.from(begin),
    tailSlots: Int32Array.from(tails.flat()),
    blockTables: Int32Array.from(paged.tables.flatMap((table) => range(stride).map((i) => table[i] ?? 0))),
    tableStride: stride,
  };
}

/**
 * Attention in float64. The bound: a score is a chain of headDim terms and the scale; its error, the rounding of
 * score - max and that of exp perturb every weight by a factor within 1 +- e; numerator and denominator each take
 * one, plus their own chains of as many additions as there are positions.
 */
export function attention(paged: Paged, rows: Row[], qkv: Float32Array, heads: number, scale: number): Bounded {
  const { kvHeads, headDim: dim } = paged.kv;
  const out = bounded(rows.length * heads * dim);
  rows.forEach((row, r) => {
    const entries = row.slots.map((slot) => paged.read(row.sequence, slot));
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head / (heads / kvHeads));
      const q = qkv.subarray((r * (heads + 2 * kvHeads) + head) * dim, (r * (heads + 2 * kvHeads) + head + 1) * dim);
      let scoreError = 0;
      const scores = entries.map((entry) => {
        let [sum, magnitude] = [0, 0];
        for (let i = 0; i < dim; i++) {
          const term = at(q, i) * at(entry, kvHead * dim + i);
          sum += term;
          magnitude += Math.abs(term);
        }
        scoreError = Math.max(scoreError, reference.gamma(dim + 1) * magnitude * scale);
        return sum * scale;
      });
      const largest = Math.max(...scores);
      const weights = scores.map((s) => Math.exp(s - largest));
      const total = weights.reduce((a, b) => a + b, 0);
      const spread = Math.max(...scores.map((s) => Math.abs(s - largest)));
      const relative = 2 * (2 * scoreError + reference.U * spread + reference.EXP);
      for (let i = 0; i < dim; i++) {
        let [sum, magnitude] = [0, 0];
        entries.forEach((entry, j) => {
          const term = (at(weights, j) / total) * at(entry, (kvHeads + kvHead) * dim + i);
          sum += term;
          magnitude += Math.abs(term);
        });
        const n = (r * heads + head) * dim + i;
        out.value[n] = sum;
        out.bound[n] = (relative + reference.gamma(2 * row.slots.length + 8)) * magnitude * 1.01 + 1e-30;
      }
    }
  });
  return out;
}

/** Rows of every kind over three sequences: a plain row, a prompt chunk, a draft tree. */
export function mixedBatch(random: Random, kvHeads: number, headDim: number): { paged: Paged; rows: Row[] } {
  const paged = new Paged(kvHeads, headDim, 24, random);
  const [plain, prompt, tree] = [paged.sequence(60), paged.sequence(40), paged.sequence(64)];
  const position = random.integers(1, 0, 60)[0] ?? 0;
  const rows = [plainRow(plain, position)];
  const start = random.integer(0, 20);
  for (let p = start; p < start + 19; p++) rows.push(prefillRow(prompt, p));
  const committed = random.integer(1, 34);
  const paths = [[...range(committed), committed]];
  while (paths.length < 30) paths.push([...random.pick(paths), committed + paths.length]);
  for (const slots of paths) rows.push({ sequence: tree, context: committed, slots });
  for (const row of rows) {
    for (const slot of row.slots) {
      if (Number.isNaN(at(paged.read(row.sequence, slot), 0))) {
        paged.write(row.sequence, slot, random.floats(paged.slotFloats()));
      }
    }
  }
  return { paged, rows };
}
