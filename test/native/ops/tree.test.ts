import { expect, it } from 'vitest';

import { at, ints, range } from '../../kit/arrays.js';
import { expectSameNumbers } from '../../kit/compare.js';
import type { Tree } from '../../kit/ops.js';
import { Random } from '../../kit/random.js';
import { describeLevels, ops, trials } from './levels.js';

interface Beams {
  beams: Int32Array;
  width: number;
  length: number;
}

/** Random beams over a small vocabulary; some are copies of earlier ones, in whole or up to a point. */
function randomBeams(random: Random): Beams {
  const [width, length] = [random.integer(1, random.pick([4, 12, 65])), random.integer(1, 9)];
  const vocab = random.pick([1, 2, 3, 5, 50]);
  const rows: Int32Array[] = [];
  while (rows.length < width) {
    const row = random.integers(length + 1, 0, vocab);
    const copied = rows.length === 0 ? 0 : random.pick([0, random.integer(0, length + 1), length + 1]);
    if (copied > 0) row.set(random.pick(rows).subarray(0, copied));
    row[0] = 7;
    rows.push(row);
  }
  return { beams: Int32Array.from(rows.flatMap((row) => Array.from(row))), width, length };
}

/** A trie, filled beam by beam. */
function trie({ beams, width, length }: Beams): Tree {
  const nodes: { token: number; parent: number; depth: number; children: Map<number, number> }[] = [];
  const unpack: number[] = [];
  for (const row of range(width)) {
    let parent = -1;
    for (const depth of range(length + 1)) {
      const token = at(beams, row * (length + 1) + depth);
      const known = parent < 0 ? (nodes.length > 0 ? 0 : undefined) : at(nodes, parent).children.get(token);
      const node = known ?? nodes.push({ token, parent, depth, children: new Map() }) - 1;
      if (parent >= 0) at(nodes, parent).children.set(token, node);
      unpack.push(node);
      parent = node;
    }
  }
  const column = (key: 'token' | 'parent' | 'depth'): Int32Array => Int32Array.from(nodes, (node) => node[key]);
  return { token: column('token'), parent: column('parent'), depth: column('depth'), unpack: Int32Array.from(unpack) };
}

function expectSameTree(actual: Tree, expected: Tree): void {
  for (const key of ['token', 'parent', 'depth', 'unpack'] as const) expectSameNumbers(actual[key], expected[key], key);
}

/** From the root on, the first child that holds the chosen token. */
function walk(token: Int32Array, parent: Int32Array, chosen: Int32Array): number[] {
  const children = new Map<string, number>();
  for (const node of range(token.length).reverse()) children.set(`${at(parent, node)} ${at(token, node)}`, node);
  const path: number[] = [];
  let node: number | undefined = 0;
  while (node !== undefined) {
    path.push(node);
    const wanted: number = at(chosen, node);
    node = wanted < 0 ? undefined : children.get(`${node} ${wanted}`);
  }
  return path;
}

describeLevels('tree_pack', (level) => {
  it('packs the worked example', () => {
    const beams = ints(7, 1, 2, 7, 1, 3, 7, 4, 2);
    expectSameTree(ops.treePack(level, 1, { beams, width: 3, length: 2 }), {
      token: ints(7, 1, 2, 3, 4, 2),
      parent: ints(-1, 0, 1, 1, 0, 4),
      depth: ints(0, 1, 2, 2, 1, 2),
      unpack: ints(0, 1, 2, 0, 1, 3, 0, 4, 5),
    });
  });
  it('keeps equal tokens under different parents apart, and drops exact duplicates', () => {
    const beams = ints(7, 5, 5, 7, 5, 5, 7, 6, 5);
    const tree = ops.treePack(level, 1, { beams, width: 3, length: 2 });
    expectSameNumbers(tree.token, [7, 5, 5, 6, 5]);
    expectSameNumbers(tree.unpack, [0, 1, 2, 0, 1, 2, 0, 3, 4]);
  });
  it('packs a root alone', () => {
    expectSameTree(ops.treePack(level, 1, { beams: ints(9), width: 1, length: 0 }), {
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
      const tree = ops.treePack(level, 1, args);
      expectSameTree(tree, trie(args));
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
});

describeLevels('tree_accept', (level) => {
  it('walks like a map of children does, for 2,500 random trees', () => {
    const random = new Random(2);
    const lengths = new Set<number>();
    for (let trial = 0; trial < trials(2500, 8); trial++) {
      const { token, parent } = ops.treePack(level, 1, randomBeams(random));
      // Mostly a token of some child, so that walks get long; sometimes anything, sometimes -1.
      const chosen = token.map((_, node) => {
        const children = range(token.length).filter((child) => at(parent, child) === node);
        if (children.length > 0 && random.uniform() < 0.8) return at(token, random.pick(children));
        return random.integer(-1, 8);
      });
      const path = ops.treeAccept(level, 1, { token, parent, chosen });
      expectSameNumbers(path, walk(token, parent, chosen));
      lengths.add(path.length);
    }
    expect(lengths.size).toBe(9);
  });
  it('takes the first of equal children, stops at -1 and at leaves', () => {
    const token = ints(7, 3, 3, 4, -1);
    const parent = ints(-1, 0, 0, 1, 3);
    const path = (...chosen: number[]): number[] =>
      Array.from(ops.treeAccept(level, 1, { token, parent, chosen: Int32Array.from(chosen) }));
    expect(path(3, 4, 9, 9, 9)).toEqual([0, 1, 3]);
    expect(path(4, 4, 4, 4, 4)).toEqual([0]);
    expect(path(-1, 4, 9, 9, 9)).toEqual([0]);
    expect(path(3, 4, 9, -1, 9)).toEqual([0, 1, 3]);
    expect(Array.from(ops.treeAccept(level, 1, { token: ints(7), parent: ints(-1), chosen: ints(7) }))).toEqual([0]);
  });
});
