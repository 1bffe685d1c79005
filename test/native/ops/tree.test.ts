import { expect, it } from 'vitest';

import { at, ints, joinBytes, range, rowOf } from '../../kit/arrays.js';
import { expectSameBytes, expectSameNumbers } from '../../kit/compare.js';
import type { TreeRowsArgs } from '../../kit/ops.js';
import { Random } from '../../kit/random.js';
import { describeLevels, ops, trials } from './levels.js';
import { BLOCK, Paged } from './paged.js';
import {
  acceptPath,
  packTree,
  pruned,
  randomBeams,
  randomChoices,
  randomLanes,
  rowsOf,
  trie,
  tries,
  UNWRITTEN,
  walk,
} from './trees.js';

/** Numbers of lanes; 33 is more than a warp has threads. */
const LANES = [1, 2, 3, 8, 33];

/** All arrays of the two, key by key. */
function expectSame<T extends object>(actual: T, expected: T, what = ''): void {
  for (const [key, array] of Object.entries(expected) as [keyof T & string, T[keyof T] & Int32Array][]) {
    expectSameNumbers(actual[key] as Int32Array, array, `${key} ${what}`);
  }
}

describeLevels('tree_pack', (level) => {
  it('packs the worked example', () => {
    const beams = ints(7, 1, 2, 7, 1, 3, 7, 4, 2);
    expectSame(packTree(level, { beams, width: 3, length: 2 }), {
      token: ints(7, 1, 2, 3, 4, 2),
      parent: ints(-1, 0, 1, 1, 0, 4),
      depth: ints(0, 1, 2, 2, 1, 2),
      unpack: ints(0, 1, 2, 0, 1, 3, 0, 4, 5),
    });
  });
  it('keeps equal tokens under different parents apart, and drops exact duplicates', () => {
    const beams = ints(7, 5, 5, 7, 5, 5, 7, 6, 5);
    const tree = packTree(level, { beams, width: 3, length: 2 });
    expectSameNumbers(tree.token, [7, 5, 5, 6, 5]);
    expectSameNumbers(tree.unpack, [0, 1, 2, 0, 1, 2, 0, 3, 4]);
  });
  it('packs a root alone', () => {
    expectSame(packTree(level, { beams: ints(9), width: 1, length: 0 }), {
      token: ints(9),
      parent: ints(-1),
      depth: ints(0),
      unpack: ints(0),
    });
  });
  it('equals a trie filled beam by beam, for 2,500 random sets of beams', () => {
    const random = new Random(1);
    let shared = 0;
    for (let trial = 0; trial < trials(2500, 8); trial++) {
      const args = randomBeams(random);
      const tree = packTree(level, args);
      const { token, parent, depth, unpack } = trie(args);
      expectSame(tree, { token, parent, depth, unpack });
      if (tree.token.length < 1 + args.width * args.length) shared++;
      // What compaction in place relies on.
      for (const row of range(args.width)) {
        const nodes = tree.unpack.subarray(row * (args.length + 1), (row + 1) * (args.length + 1));
        const rises = nodes.every((node, j) => node >= j && (j === 0 || node > at(nodes, j - 1)));
        if (!rises) expect.fail(`unpack of row ${row} does not rise: ${nodes.join()}`);
      }
      if (!tree.parent.every((parent, node) => parent < node)) expect.fail('a child before its parent');
    }
    expect(shared).toBeGreaterThan(trials(1000, 8));
  });
  it.each(LANES)(
    'packs the live rows of each of %d lanes, its root where there are none, keeps its budget, and writes no more',
    (lanes) => {
      const random = new Random(lanes);
      for (let trial = 0; trial < trials(100, 10); trial++) {
        const args = randomLanes(random, lanes);
        expectSame(ops.treePack(level, 1, args), tries(args), `trial ${trial}`);
      }
    },
  );
  it('keeps the most probable nodes of a worked example, parents before children', () => {
    // Beams 1 2, 1 3 and 4 2 under a root of 7: nodes 7, 1, 2, 3, 4, 2.
    const args = {
      ...{ beams: ints(7, 1, 2, 7, 1, 3, 7, 4, 2), root: ints(7), live: ints(3), width: 3, length: 2 },
      scores: Float32Array.of(0, -1, -2, 0, -1, -4, 0, -3, -4),
    };
    const kept = (budget: number, least = -Infinity): number[] => {
      const { token, nodes } = ops.treePack(level, 1, { ...args, budget, least });
      return Array.from(token.slice(0, at(nodes, 0)));
    };
    expect([7, 6, 5, 4, 3, 2, 1].map((budget) => kept(budget))).toEqual([
      [7, 1, 2, 3, 4, 2],
      [7, 1, 2, 3, 4, 2],
      [7, 1, 2, 3, 4], // of the two with -4 the first
      [7, 1, 2, 4],
      [7, 1, 2],
      [7, 1],
      [7],
    ]);
    expect([-4, -3, -1, 0, 9].map((least) => kept(7, least).length)).toEqual([6, 4, 2, 1, 1]);
    expect(kept(3, -1)).toEqual([7, 1]);
    const { parent, depth, unpack } = ops.treePack(level, 1, { ...args, budget: 4, least: -Infinity });
    expect(Array.from(parent)).toEqual([-1, 0, 1, 0]);
    expect(Array.from(depth)).toEqual([0, 1, 2, 1]);
    expect(Array.from(unpack)).toEqual([0, 1, 2, 0, 1, -1, 0, 3, -1]);
  });
  it('would notice the last of equals being kept, a child without its parent, and a budget of one more', () => {
    const random = new Random(21);
    const missed = { last: 0, orphans: 0, more: 0 };
    for (let trial = 0; trial < 120; trial++) {
      const args = { ...randomLanes(random, 3), least: -Infinity };
      const [first, live] = [2 * args.width * (args.length + 1), at(args.live, 2)];
      if (live === 0) continue;
      const own = trie({
        ...args,
        beams: args.beams.subarray(first),
        scores: args.scores.subarray(first),
        width: live,
      });
      const op = ops.treePack(level, 1, args);
      const differs = (score: number[], budget: number): boolean =>
        pruned({ ...own, score }, budget, -Infinity).unpack.join() !==
        op.unpack.slice(first, first + own.unpack.length).join();
      expect(differs(own.score, args.budget)).toBe(false);
      const later = own.score.map((score, node) => (score === -Infinity ? -1e9 : score) + node * 1e-9);
      if (differs(later, args.budget)) missed.last++;
      if (differs(own.given, args.budget)) missed.orphans++;
      if (differs(own.score, args.budget + 1)) missed.more++;
    }
    expect(Math.min(...Object.values(missed))).toBeGreaterThan(5);
  });
  it('keeps a parent that its scores say is less probable than its child', () => {
    const args = { beams: ints(7, 1, 2, 7, 3, 4), root: ints(7), live: ints(2), width: 2, length: 2 };
    const scores = Float32Array.of(0, -5, -1, 0, -2, -3);
    const { token, parent, nodes } = ops.treePack(level, 1, { ...args, scores, budget: 4, least: -Infinity });
    expectSameNumbers(nodes, [4]);
    expectSameNumbers(token, [7, 1, 3, 4]);
    expectSameNumbers(parent, [-1, 0, 0, 2]);
  });
  it('keeps a budget of the widest trees', () => {
    const random = new Random(8);
    const { beams } = randomBeams(random, { width: 64, length: 8 });
    const args = { beams, root: ints(7), live: ints(64), width: 64, length: 8, scores: random.floats(64 * 9) };
    for (const budget of [1, 2, 64, 300, 513]) {
      const packed = { ...args, budget, least: -Infinity };
      expectSame(ops.treePack(level, 1, packed), tries(packed), `budget ${budget}`);
    }
  });
});

/** Trees of lanes as part of a pass; `padding` rows at most behind the nodes of a lane, or none at all for a lane. */
function randomPass(random: Random, lanes: number, padding: number): TreeRowsArgs {
  const packed = randomLanes(random, lanes);
  const { token, parent, depth, nodes } = tries(packed);
  const begin = [random.integer(0, 5)];
  for (const count of nodes) {
    const rows = padding > 0 && random.uniform() < 0.2 ? 0 : count + random.integer(0, padding + 1);
    begin.push(at(begin, begin.length - 1) + rows);
  }
  return {
    ...{ token, parent, depth, nodes, budget: packed.budget },
    begin: Int32Array.from(begin),
    committed: random.integers(lanes, 0, 1000),
    firstSequence: random.integer(0, 9),
    tailStride: packed.length + 1 + random.pick([0, 0, 3]),
    rows: at(begin, lanes) + random.integer(0, 4),
  };
}

describeLevels('tree_rows', (level) => {
  it('brings a worked example into a pass, with two inert rows', () => {
    const y = ops.treeRows(level, 1, {
      ...{ token: ints(7, 1, 2, 3), parent: ints(-1, 0, 0, 2), depth: ints(0, 1, 1, 2), nodes: ints(4) },
      ...{ budget: 4, begin: ints(1, 7), committed: ints(20), firstSequence: 5, tailStride: 4, rows: 8 },
    });
    const [x, lane] = [UNWRITTEN, [5, 5, 5, 5, 5, 5]];
    expectSame(y, {
      token: ints(x, 7, 1, 2, 3, 0, 0, x),
      position: ints(x, 20, 21, 21, 22, -1, -1, x),
      slot: ints(x, 20, 21, 22, 23, -1, -1, x),
      sequence: ints(x, ...lane, x),
      context: ints(x, 20, 20, 20, 20, 0, 0, x),
      tailBegin: ints(x, 4, 8, 12, 16, 20, 24, x),
      tailSlots: ints(
        ...[x, x, x, x, 20, x, x, x, 20, 21, x, x, 20, 22, x, x],
        ...[20, 22, 23, x, x, x, x, x, x, x, x, x, x, x, x, x],
      ),
      choosePosition: ints(x, 21, 22, 22, 23, 0, 0, x),
      parent: ints(x, -1, 0, 0, 2, -1, -1, x),
    });
  });
  it.each(LANES)('brings the trees of %d lanes into a pass, with and without padding, and writes no more', (lanes) => {
    const random = new Random(40 + lanes);
    for (let trial = 0; trial < trials(50, 5); trial++) {
      for (const padding of [0, 9]) {
        const args = randomPass(random, lanes, padding);
        expectSame(ops.treeRows(level, 1, args), rowsOf(args), `trial ${trial}, padding ${padding}`);
      }
    }
  });
  it('makes rows for rope and attention; inert rows change nothing, even where they hold NaN', () => {
    const random = new Random(11);
    const [lanes, heads, kvHeads, headDim] = [6, 4, 2, 16];
    const columns = (heads + 2 * kvHeads) * headDim;
    const pass = randomPass(random, lanes, 0);
    const committed = random.integers(lanes, 0, 40);
    const paged = new Paged(kvHeads, headDim, lanes * 9, random);
    for (const lane of range(lanes)) {
      paged.sequence(9 * BLOCK);
      for (const slot of range(at(committed, lane))) paged.write(lane, slot, random.floats(paged.slotFloats()));
    }
    const cosSin = random.floats(9 * BLOCK * headDim);
    const inputs = Array.from(pass.nodes, (nodes) => range(nodes).map(() => random.floats(columns)));
    /** What the nodes of all lanes get, and the whole cache behind it. Behind all trees come `last` more inert rows. */
    const results = (padding: number, last: number): Uint8Array => {
      const begin = [0];
      for (const nodes of pass.nodes) begin.push(at(begin, begin.length - 1) + nodes + padding);
      const rows = at(begin, lanes) + last;
      const args = { ...pass, begin: Int32Array.from(begin), committed, firstSequence: 0, rows };
      const made = ops.treeRows(level, 1, args);
      const { tailBegin, tailSlots } = made;
      for (const row of range(rows).slice(at(begin, lanes))) {
        made.position[row] = made.slot[row] = -1;
        made.context[row] = 0;
        made.sequence[row] = lanes - 1;
        made.tailBegin[row] = row * pass.tailStride;
      }
      const { position, slot, sequence, context } = made;
      const batch = {
        ...{ position, slot, sequence, context, tableStride: 9 },
        // Only the slots that rows name.
        tailSlots: tailSlots.map((own) => (own === UNWRITTEN ? 0 : own)),
        tailBegin: Int32Array.from([...tailBegin, tailSlots.length]),
        blockTables: Int32Array.from(paged.tables.flat()),
      };
      const x = new Float32Array(rows * columns).fill(NaN);
      const each = <T>(body: (row: number, lane: number, node: number) => T): T[] =>
        range(lanes).flatMap((lane) => range(at(pass.nodes, lane)).map((n) => body(at(begin, lane) + n, lane, n)));
      each((row, lane, node) => {
        x.set(at(at(inputs, lane), node), row * columns);
      });
      const { qkv, ...kv } = ops.rope(level, 1, { qkv: x, cosSin, kv: paged.kv, batch, heads });
      const y = ops.attention(level, 1, { qkv, kv: { ...paged.kv, ...kv }, batch, heads, scale: 0.25 });
      const found = each((row) => rowOf(y, heads * headDim, row));
      expect(found.flatMap((row) => [...row]).filter(Number.isNaN)).toEqual([]);
      return joinBytes(...found, kv.k, kv.v);
    };
    const without = results(0, 0);
    for (const [padding, last] of [
      [1, 0],
      [9, 0],
      [0, 1],
      [3, 40],
    ] as const)
      expectSameBytes(results(padding, last), without, `${padding} rows behind each tree, ${last} behind all`);
  });
  it('has more rows in a lane than a block has threads', () => {
    const all = { scores: new Float32Array(90 * 9), budget: 721, least: -Infinity };
    const packed = { width: 90, length: 8, root: ints(7), live: ints(90), ...all };
    const beams = new Random(3).integers(90 * 9, 0, 50).map((token, i) => (i % 9 === 0 ? 7 : token));
    const trees = tries({ ...packed, beams });
    expect(at(trees.nodes, 0)).toBeGreaterThan(600);
    const args: TreeRowsArgs = {
      ...{ ...trees, budget: 721, begin: ints(0, 721), committed: ints(3) },
      ...{ firstSequence: 0, tailStride: 9, rows: 721 },
    };
    expectSame(ops.treeRows(level, 1, args), rowsOf(args));
  });
});

describeLevels('tree_accept', (level) => {
  it('walks like a map of children does, for 2,500 random trees', () => {
    const random = new Random(2);
    const lengths = new Set<number>();
    for (let trial = 0; trial < trials(2500, 8); trial++) {
      const { token, parent } = packTree(level, randomBeams(random));
      const chosen = randomChoices(random, token, parent);
      const path = acceptPath(level, { token, parent, chosen });
      expectSameNumbers(path, walk(token, parent, chosen));
      lengths.add(path.length);
    }
    expect(lengths.size).toBe(9);
  });
  it('takes the first of equal children, stops at -1 and at leaves', () => {
    const token = ints(7, 3, 3, 4, -1);
    const parent = ints(-1, 0, 0, 1, 3);
    const path = (...chosen: number[]): number[] =>
      Array.from(acceptPath(level, { token, parent, chosen: Int32Array.from(chosen) }));
    expect(path(3, 4, 9, 9, 9)).toEqual([0, 1, 3]);
    expect(path(4, 4, 4, 4, 4)).toEqual([0]);
    expect(path(-1, 4, 9, 9, 9)).toEqual([0]);
    expect(path(3, 4, 9, -1, 9)).toEqual([0, 1, 3]);
    expect(Array.from(acceptPath(level, { token: ints(7), parent: ints(-1), chosen: ints(7) }))).toEqual([0]);
  });
  it.each(LANES)(
    'walks the tree of each of %d lanes, at most `stride` nodes, whatever inert rows hold, and none of no rows',
    (lanes) => {
      const random = new Random(80 + lanes);
      for (let trial = 0; trial < trials(50, 5); trial++) {
        const pass = randomPass(random, lanes, 9);
        const rows = rowsOf(pass);
        const token = rows.token.map((own) => (own === 0 || own === UNWRITTEN ? random.integer(0, 8) : own));
        const parent = rows.parent.map((own) => (own === UNWRITTEN ? -1 : own));
        const of = (lane: number): [number, number] => [at(pass.begin, lane), at(pass.begin, lane + 1)];
        const chosen = new Int32Array(pass.rows).fill(7);
        for (const lane of range(lanes)) {
          chosen.set(randomChoices(random, token.slice(...of(lane)), parent.slice(...of(lane))), at(pass.begin, lane));
        }
        const stride = random.integer(1, pass.tailStride + 2);
        const expected = [new Int32Array(lanes * stride), new Int32Array(lanes * stride)].map((x) => x.fill(UNWRITTEN));
        const [path = ints(), emitted = ints()] = expected;
        const pathLength = Int32Array.from(range(lanes), (lane) => {
          const own = [token, parent, chosen].map((x) => x.slice(...of(lane)));
          const nodes = at(own, 0).length === 0 ? [] : walk(at(own, 0), at(own, 1), at(own, 2)).slice(0, stride);
          path.set(nodes, lane * stride);
          emitted.set(
            nodes.map((node) => at(at(own, 2), node)),
            lane * stride,
          );
          return nodes.length;
        });
        const y = ops.treeAccept(level, 1, { token, parent, chosen, begin: pass.begin, stride });
        expectSame(y, { path, emitted, pathLength }, `trial ${trial}`);
      }
    },
  );
});

describeLevels('keep_hidden', (level) => {
  it.each([1, 2, 8, 33])(
    'copies the row of the last node of the path of each of %d lanes, and nothing else, nor of lanes without rows',
    (lanes) => {
      const random = new Random(lanes);
      for (const hidden of [1, 33, 600]) {
        const stride = 4;
        const begin = [random.integer(0, 3)];
        for (const lane of range(lanes)) {
          begin.push(at(begin, lane) + (lane > 0 && random.uniform() < 0.3 ? 0 : random.integer(1, 9)));
        }
        const [rows, toRows] = [at(begin, lanes) + 1, lanes + 3];
        const hiddenOut = random.floats(rows * hidden);
        for (const [i, value] of [NaN, -0, Infinity].entries()) hiddenOut[random.integer(0, rows) * hidden] = value + i;
        const to = random.floats(toRows * hidden);
        const toRow = random.permutation(toRows).slice(0, lanes);
        const pathLength = new Int32Array(lanes);
        const path = new Int32Array(lanes * stride);
        const expected = to.slice();
        for (const lane of range(lanes)) {
          const first = at(begin, lane);
          const nodes = range(at(begin, lane + 1) - first).filter((node) => node === 0 || random.uniform() < 0.5);
          path.set(nodes.slice(0, stride), lane * stride);
          pathLength[lane] = Math.min(nodes.length, stride);
          if (nodes.length === 0) {
            toRow[lane] = at(toRow, 0); // nothing of it is kept
            continue;
          }
          const row = first + at(nodes, at(pathLength, lane) - 1);
          expected.set(hiddenOut.subarray(row * hidden, (row + 1) * hidden), at(toRow, lane) * hidden);
        }
        const args = { hiddenOut, path, pathLength, stride, toRow, to, hidden, begin: Int32Array.from(begin) };
        expectSameBytes(ops.keepHidden(level, 1, args), expected, `hidden ${hidden}`);
      }
    },
  );
});
