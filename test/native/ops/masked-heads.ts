/** The head of the drafter with masks: what is chosen must be the best of what each row may choose. */
import { at, range, rowOf } from '../../kit/arrays.js';
import { randomMatrix } from '../../kit/bf16.js';
import { worstRatio } from '../../kit/compare.js';
import type { HeadTopArgs, TopRows } from '../../kit/ops.js';
import { Random } from '../../kit/random.js';
import { FINEST } from './cases.js';
import { ops } from './levels.js';
import * as reference from './reference.js';

export interface MaskedHead {
  vocab: number;
  rows: number;
  /** Rows that share a mask: the beams of a lane, or one where each beam has its own. */
  perMask: number;
  /** The draft vocabulary is a part of the target's. */
  mapped: boolean;
}

export const maskedHeads: MaskedHead[] = [
  { vocab: 300, rows: 6, perMask: 2, mapped: false },
  { vocab: 40, rows: 3, perMask: 1, mapped: true },
  { vocab: 1000, rows: 8, perMask: 4, mapped: true },
  { vocab: 131, rows: 24, perMask: 1, mapped: false },
  { vocab: 257, rows: 70, perMask: 1, mapped: true },
];

const TOP = 5;

/** Masks by number: half of the ids, an eighth of them, none, one alone. */
function maskWords(random: Random, words: number, only: number): Int32Array {
  const mask = new Int32Array(4 * words).map((_, i) => {
    if (i < words) return random.uint32();
    return i < 2 * words ? random.uint32() & random.uint32() & random.uint32() : 0;
  });
  mask[3 * words + (only >> 5)] = 1 << (only & 31);
  return mask;
}

export function maskedHead({ vocab, rows, perMask, mapped }: MaskedHead): Required<HeadTopArgs> {
  const random = new Random(vocab);
  const words = Math.ceil((mapped ? 2 * vocab : vocab) / 32);
  const idMap = Int32Array.from({ length: vocab }, (_, i) => (mapped ? 2 * i + (i % 2) : i));
  return {
    ...{ z: random.floats(rows * 24), head: randomMatrix(random, FINEST, vocab, 24), rows, top: TOP },
    ...{ mask: maskWords(random, words, at(idMap, vocab - 2)), maskWords: words, idMap },
    maskIndex: Int32Array.from({ length: rows / perMask }, (_, i) => (i % 5) - 1),
  };
}

/** Rows for which something else is chosen, or whose log-sum-exp is not that of what may be chosen. */
export function maskFaults(level: string, c: MaskedHead): string[] {
  const args = maskedHead(c);
  const { mask, maskIndex, maskWords: words, idMap } = args;
  const y: TopRows = ops.headTop(level, 2, args);
  const logits = ops.matmul(level, 1, { x: args.z, w: args.head, rows: c.rows });
  return range(c.rows).flatMap((row) => {
    const index = at(maskIndex, Math.floor(row / c.perMask));
    const allowed = (n: number): boolean => {
      const id = at(idMap, n);
      return index < 0 || ((at(mask, index * words + (id >> 5)) >>> (id & 31)) & 1) === 1;
    };
    const own = rowOf(logits, c.vocab, row).map((x, n) => (allowed(n) ? x : NaN));
    const faults: string[] = [];
    const best = reference.topIndices(own, TOP);
    const token = rowOf(y.token, TOP, row);
    if (token.join() !== best.join()) faults.push(`row ${row} of ${c.rows}: ${token.join()}, expected ${best.join()}`);
    if (index === 2) return faults; // nothing is left to sum
    const { value, bound } = reference.logSumExp(own.filter((x) => x === x));
    const sums = { value: Float64Array.of(value), bound: Float64Array.of(bound) };
    if (worstRatio(rowOf(y.logSumExp, 1, row), sums).ratio > 1) faults.push(`row ${row} of ${c.rows}: log-sum-exp`);
    return faults;
  });
}
