/** A paged cache of one layer and batches over it, as the tests build them. */
import { at, range } from '../../kit/arrays.js';
import { decode, encode } from '../../kit/bf16.js';
import type { Bounded } from '../../kit/compare.js';
import type { BatchArg, DType, KvArg } from '../../kit/ops.js';
import { halfUnit, PROPERTIES, rounded } from './levels.js';
import { bounded } from './reference.js';
import * as reference from './reference.js';
import type { Random } from '../../kit/random.js';

export const BLOCK = 16;
export const padded = (headDim: number): number => Math.ceil(headDim / 16) * 16;

/** A dtype that the caches of this project can have; case `i` of a table takes the i-th in turn. */
export const cacheDtype = (i: number): DType => at(PROPERTIES.caches, i % PROPERTIES.caches.length);

/** Slots that nothing was written to hold NaN. Numbers are rounded to the dtype of the cache. */
export class Paged {
  readonly kv: KvArg & { dtype: DType };
  private next = 0;
  private readonly order: Int32Array;
  readonly tables: number[][] = [];

  constructor(kvHeads: number, headDim: number, blocks: number, random: Random, dtype: DType = cacheDtype(0)) {
    this.kv = {
      k: new Float32Array(blocks * kvHeads * headDim * BLOCK).fill(NaN),
      v: new Float32Array(blocks * kvHeads * BLOCK * padded(headDim)).fill(NaN),
      kvHeads,
      headDim,
      dtype,
    };
    this.order = random.permutation(blocks);
  }

  /** A new sequence with random blocks for `slots` slots. */
  sequence(slots: number): number {
    this.tables.push(range(Math.ceil(slots / BLOCK)).map(() => at(this.order, this.next++)));
    return this.tables.length - 1;
  }

  /** The block that the next sequence would begin with. */
  unusedBlock(): number {
    return at(this.order, this.next);
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
  write(sequence: number, slot: number, numbers: Float32Array): void {
    const { k, v, kvHeads, headDim, dtype } = this.kv;
    const values = decode(dtype, encode(dtype, numbers));
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
  /** k and v as an op that changes nothing returns them: with zeros as padding where the cache is not in this layout. */
  untouched(): { k: Float32Array; v: Float32Array } {
    const { k, v, headDim, dtype } = this.kv;
    const isPadding = (i: number): boolean => dtype !== 'f32' && i % padded(headDim) >= headDim;
    return { k, v: v.map((x, i) => (isPadding(i) ? 0 : x)) };
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

/** A row that sees nothing and writes nothing. */
export const inertRow = (sequence: number): Row => ({ sequence, context: 0, slots: [] });

export function batchOf(paged: Paged, rows: Row[]): BatchArg {
  const tails = rows.map((row) => row.slots.slice(row.context));
  const stride = paged.tableStride();
  const begin = [0];
  for (const tail of tails) begin.push(at(begin, begin.length - 1) + tail.length);
  return {
    position: Int32Array.from(rows, (row) => row.slots.length - 1),
    slot: Int32Array.from(rows, (row) => row.slots.at(-1) ?? -1),
    sequence: Int32Array.from(rows, (row) => row.sequence),
    context: Int32Array.from(rows, (row) => row.context),
    tailBegin: Int32Array.from(begin),
    tailSlots: Int32Array.from(tails.flat()),
    blockTables: Int32Array.from(paged.tables.flatMap((table) => range(stride).map((i) => table[i] ?? 0))),
    tableStride: stride,
  };
}

/**
 * Attention in float64. The bound: a score is a sum of headDim products and the scale; its error, the rounding of
 * score - max and that of exp perturb every weight by a factor within 1 +- e; numerator and denominator each take
 * one, plus their own sums of as many terms as there are positions. Tensor cores take q and the weights rounded to the
 * dtype of the cache. q is rounded here, too. A weight, at most 1 in its chunk of positions, is within half a unit:
 * relative, once in the numerator and once in the denominator; and for f16 absolute, weighed by the values, as the
 * denominator is at least the largest weight. There, chunks have at least 16 positions, and each is scaled by an exp
 * of its own, whose argument is a difference of two maxima, before it joins the sums.
 */
export function attention(paged: Paged, rows: Row[], qkv: Float32Array, heads: number, scale: number): Bounded {
  const { kvHeads, headDim: dim, dtype } = paged.kv;
  const out = bounded(rows.length * heads * dim);
  const weight = halfUnit(dtype);
  rows.forEach((row, r) => {
    const entries = row.slots.map((slot) => paged.read(row.sequence, slot));
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head / (heads / kvHeads));
      const first = (r * (heads + 2 * kvHeads) + head) * dim;
      const q = rounded(dtype, qkv.subarray(first, first + dim));
      let scoreError = 0;
      const scores = entries.map((entry) => {
        let [sum, magnitude] = [0, 0];
        for (let i = 0; i < dim; i++) {
          const term = at(q, i) * at(entry, kvHead * dim + i);
          sum += term;
          magnitude += Math.abs(term);
        }
        scoreError = Math.max(scoreError, reference.chain(dim, 1) * magnitude * scale);
        return sum * scale;
      });
      const largest = Math.max(...scores);
      const weights = scores.map((s) => Math.exp(s - largest));
      const total = weights.reduce((a, b) => a + b, 0);
      const spread = Math.max(...scores.map((s) => Math.abs(s - largest)));
      const chunks = PROPERTIES.roundsInputs ? Math.ceil(row.slots.length / 16) : 0;
      const scaling = chunks * (reference.U * spread + reference.EXP + 2 * reference.U);
      const relative = 2 * (2 * scoreError + reference.U * spread + reference.EXP + scaling + weight.relative);
      for (let i = 0; i < dim; i++) {
        let [sum, magnitude, absolute] = [0, 0, 0];
        entries.forEach((entry, j) => {
          const value = at(entry, (kvHeads + kvHead) * dim + i);
          const term = (at(weights, j) / total) * value;
          sum += term;
          magnitude += Math.abs(term);
          absolute += 2 * weight.absolute * Math.abs(value);
        });
        const n = (r * heads + head) * dim + i;
        out.value[n] = sum;
        out.bound[n] = (relative + reference.chain(2 * row.slots.length, 8)) * magnitude * 1.01 + absolute + 1e-30;
      }
    }
  });
  return out;
}

/** Random K and V in every slot that the rows see and that nothing was written to. */
function fill(paged: Paged, rows: Row[], random: Random): void {
  for (const row of rows) {
    for (const slot of row.slots) {
      if (Number.isNaN(at(paged.read(row.sequence, slot), 0))) {
        paged.write(row.sequence, slot, random.floats(paged.slotFloats()));
      }
    }
  }
}

export interface Mixed {
  paged: Paged;
  rows: Row[];
}

/** Rows of every kind over three sequences: a plain row, a prompt chunk, a draft tree. */
export function mixedBatch(random: Random, kvHeads: number, headDim: number, dtype?: DType): Mixed {
  const paged = new Paged(kvHeads, headDim, 24, random, dtype);
  const [plain, prompt, tree] = [paged.sequence(60), paged.sequence(40), paged.sequence(64)];
  const position = random.integers(1, 0, 60)[0] ?? 0;
  const rows = [plainRow(plain, position)];
  const start = random.integer(0, 20);
  for (let p = start; p < start + 19; p++) rows.push(prefillRow(prompt, p));
  const committed = random.integer(1, 34);
  const paths = [[...range(committed), committed]];
  while (paths.length < 30) paths.push([...random.pick(paths), committed + paths.length]);
  for (const slots of paths) rows.push({ sequence: tree, context: committed, slots });
  fill(paged, rows, random);
  return { paged, rows };
}

/** For each context a sequence with a draft tree behind it, and one row of a prompt chunk at its end. */
export function longBatch(random: Random, contexts: number[], kvHeads: number, headDim: number, dtype?: DType): Mixed {
  const blocks = contexts.map((context) => Math.ceil((context + 12) / BLOCK)).reduce((a, b) => a + b, 0);
  const paged = new Paged(kvHeads, headDim, blocks, random, dtype);
  const rows = contexts.flatMap((context) => {
    const sequence = paged.sequence(context + 12);
    const paths = [[...range(context), context]];
    while (paths.length < 7) paths.push([...random.pick(paths), context + paths.length]);
    return [prefillRow(sequence, context - 1), ...paths.map((slots): Row => ({ sequence, context, slots }))];
  });
  fill(paged, rows, random);
  return { paged, rows };
}
