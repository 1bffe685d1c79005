import { it } from 'vitest';

import { at, ints, range } from '../../kit/arrays.js';
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
        ...{ kv: paged.kv, blockTables: Int32Array.from(at(paged.tables, 0)), tableStride: 7 },
        ...{ committed: ints(toSlot), pathLength: ints(from.length), pathStride: from.length },
        path: Int32Array.from(from, (slot) => slot - toSlot),
      });
      values.forEach((value, i) => {
        paged.write(0, toSlot + i, value);
      });
      expectSameCache(result, paged.untouched(), `trial ${trial}`);
    }
  });
  it.each([1, 2, 5, 33])('equals that for every layer of every one of %d lanes', (lanes) => {
    const random = new Random(lanes);
    for (let trial = 0; trial < trials(8, 4); trial++) {
      const [kvHeads, headDim] = random.pick(SHAPES.slice(0, 2));
      const [pathStride, tableStride, blocks] = [6, 3, 2];
      // The same blocks in every layer, each with values of its own; tables longer than the sequences.
      const layers = range(3).map((layer) => {
        const paged = new Paged(kvHeads, headDim, lanes * blocks + 1, new Random(trial), cacheDtype(trial));
        for (const lane of range(lanes)) {
          paged.sequence(blocks * BLOCK);
          const values = new Random(1000 * layer + lane);
          for (const slot of range(blocks * BLOCK)) paged.write(lane, slot, values.floats(paged.slotFloats()));
        }
        return paged;
      });
      const committed = random.integers(lanes, 0, blocks * BLOCK - 3 * pathStride);
      const pathLength = Int32Array.from(range(lanes), () => random.integer(0, pathStride + 1));
      const path = random.integers(lanes * pathStride, 0, pathStride); // behind a path there may be anything
      const unused = at(layers, 0).unusedBlock();
      const blockTables = new Int32Array(lanes * tableStride).fill(unused);
      for (const lane of range(lanes)) {
        blockTables.set(at(at(layers, 0).tables, lane), lane * tableStride);
        let node = -1;
        for (const i of range(at(pathLength, lane))) {
          node += i === 0 ? 1 : random.pick([1, 1, 2, 3]);
          path[lane * pathStride + i] = node;
        }
      }
      const kv = { ...at(layers, 0).kv, k: joinFloats(layers, 'k'), v: joinFloats(layers, 'v'), layers: 3 };
      const result = ops.kvCompact(level, 1, {
        ...{ kv, blockTables, tableStride, committed, path, pathStride, pathLength },
      });
      for (const paged of layers) {
        for (const lane of range(lanes)) {
          const to = at(committed, lane);
          const nodes = path.subarray(lane * pathStride, lane * pathStride + at(pathLength, lane));
          const values = Array.from(nodes, (node) => paged.read(lane, to + node));
          values.forEach((value, i) => {
            paged.write(lane, to + i, value);
          });
        }
      }
      const expected = layers.map((paged) => ({ kv: paged.untouched() }));
      expectSameCache(result, { k: joinFloats(expected, 'k'), v: joinFloats(expected, 'v') }, `trial ${trial}`);
    }
  });
});

/** k or v of all layers. */
function joinFloats(layers: { kv: { k: Float32Array; v: Float32Array } }[], key: 'k' | 'v'): Float32Array {
  return Float32Array.from(layers.flatMap(({ kv }) => Array.from(kv[key])));
}

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
