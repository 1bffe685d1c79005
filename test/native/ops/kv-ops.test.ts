import { it } from 'vitest';

import { at, range } from '../../kit/arrays.js';
import { expectSameCache } from '../../kit/compare.js';
import type { DType } from '../../kit/ops.js';
import { Random } from '../../kit/random.js';
import { describeLevels, KERNELS, ops, trials } from './levels.js';
import { BLOCK, cacheDtype, Paged } from './paged.js';

const SHAPES: [kvHeads: number, headDim: number][] = [
  [1, 8],
  [2, 24],
  [3, 64],
  [8, 16],
];

/** A cache in which every slot of one sequence of 7 blocks holds values of its own. */
function filled(random: Random, [kvHeads, headDim]: [number, number], dtype: DType): Paged {
  const paged = new Paged(kvHeads, headDim, 9, random, dtype);
  paged.sequence(7 * BLOCK);
  for (const slot of range(7 * BLOCK)) paged.write(0, slot, random.floats(paged.slotFloats()));
  return paged;
}

describeLevels('kv_compact', (level) => {
  it('equals a copy out of place, and touches nothing else', () => {
    const random = new Random(1);
    for (let trial = 0; trial < trials(60, 4); trial++) {
      const paged = filled(random, random.pick(SHAPES), cacheDtype(trial));
      const toSlot = random.integer(0, 50);
      // Strictly increasing and never behind its destination: the path of a tree that begins at toSlot.
      const from: number[] = [];
      const count = random.integer(0, 30);
      while (from.length < count) from.push(Math.max(toSlot, (from.at(-1) ?? -1) + 1) + random.pick([0, 0, 1, 3]));
      const values = from.map((slot) => paged.read(0, Math.min(slot, 7 * BLOCK - 1)));
      if ((from.at(-1) ?? 0) >= 7 * BLOCK) continue;
      const result = ops.kvCompact(level, 1, {
        kv: paged.kv,
        blockTable: Int32Array.from(at(paged.tables, 0)),
        from: Int32Array.from(from),
        toSlot,
      });
      values.forEach((value, i) => {
        paged.write(0, toSlot + i, value);
      });
      expectSameCache(result, paged.untouched(), `trial ${trial}`);
    }
  });
});

describeLevels('kv_copy_block', (level) => {
  it('copies the first tokens, zeros the rest, touches nothing else', () => {
    const random = new Random(2);
    for (const shape of SHAPES) {
      for (const tokens of KERNELS ? [0, 1, 6, 15, 16] : range(BLOCK + 1)) {
        const paged = filled(random, shape, cacheDtype(tokens));
        const [source, target] = random.permutation(7);
        const table = at(paged.tables, 0);
        const [from, to] = [at(table, source ?? 0), at(table, target ?? 0)];
        const result = ops.kvCopyBlock(level, 1, { kv: paged.kv, from, to, tokens });
        for (const t of range(BLOCK)) {
          const zeros = new Float32Array(paged.slotFloats());
          const value = t < tokens ? paged.read(0, (source ?? 0) * BLOCK + t) : zeros;
          paged.write(0, (target ?? 0) * BLOCK + t, value);
        }
        expectSameCache(result, paged.untouched(), `${tokens} tokens`);
      }
    }
  });
});
