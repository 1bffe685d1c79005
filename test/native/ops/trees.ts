/** Draft trees: what the ops should make of beams and of trees, plainly; and the ops on a single tree. */
import { at, ints, range } from '../../kit/arrays.js';
import type { TreePackArgs, TreeRows, TreeRowsArgs, Trees } from '../../kit/ops.js';
import type { Random } from '../../kit/random.js';
import { ops } from './levels.js';

/** What op outputs hold where nothing was written (native/testing/op_call.cc). */
export const UNWRITTEN = 0xffc5c5c5 | 0;

export interface Beams {
  beams: Int32Array;
  width: number;
  length: number;
}

export type Tree = Omit<Trees, 'nodes'>;

/** Random beams over a small vocabulary; some are copies of earlier ones, in whole or up to a point. */
export function randomBeams(random: Random, shape?: { width: number; length: number }): Beams {
  const [anyWidth, anyLength] = [random.integer(1, random.pick([4, 12, 65])), random.integer(1, 9)];
  const { width, length } = shape ?? { width: anyWidth, length: anyLength };
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

/** A tree and how probable its nodes are: as their scores have it, and not more than their parents. */
type Scored = Tree & { given: number[]; score: number[] };

/** A trie, filled beam by beam. */
export function trie({ beams, width, length, scores }: Beams & { scores?: Float32Array }): Scored {
  const nodes: { token: number; parent: number; depth: number; children: Map<number, number> }[] = [];
  const unpack: number[] = [];
  const [given, score]: [number[], number[]] = [[], []];
  for (const row of range(width)) {
    let parent = -1;
    for (const depth of range(length + 1)) {
      const token = at(beams, row * (length + 1) + depth);
      const known = parent < 0 ? (nodes.length > 0 ? 0 : undefined) : at(nodes, parent).children.get(token);
      const node = known ?? nodes.push({ token, parent, depth, children: new Map() }) - 1;
      if (known === undefined) {
        const own = scores?.[row * (length + 1) + depth] ?? 0;
        given.push(parent < 0 ? Infinity : own);
        score.push(parent < 0 ? Infinity : Math.min(own, at(score, parent)));
      }
      if (parent >= 0) at(nodes, parent).children.set(token, node);
      unpack.push(node);
      parent = node;
    }
  }
  const column = (key: 'token' | 'parent' | 'depth'): Int32Array => Int32Array.from(nodes, (node) => node[key]);
  const unpacked = Int32Array.from(unpack);
  return { token: column('token'), parent: column('parent'), depth: column('depth'), unpack: unpacked, given, score };
}

/** What is left of a trie: its most probable nodes, the first of equals, in the order that they had. */
export function pruned({ score, ...tree }: Tree & { score: number[] }, budget: number, least: number): Tree {
  const ranked = range(score.length).sort((a, b) => at(score, b) - at(score, a) || a - b);
  const kept = ranked.slice(0, budget).filter((node) => at(score, node) >= least);
  kept.sort((a, b) => a - b);
  const place = (node: number): number => kept.indexOf(node);
  const column = (key: 'token' | 'depth'): Int32Array => Int32Array.from(kept, (node) => at(tree[key], node));
  return {
    ...{ token: column('token'), depth: column('depth') },
    parent: Int32Array.from(kept, (node) => (node === 0 ? -1 : place(at(tree.parent, node)))),
    unpack: tree.unpack.map(place),
  };
}

/**
 * Beams of lanes, of which each packs its own number of rows, 0 and all among them. Scores have many ties and now and then
 * rise; half of the time all nodes are kept.
 */
export function randomLanes(random: Random, lanes: number): TreePackArgs {
  const { width, length } = { width: random.integer(1, random.pick([4, 12])), length: random.integer(1, 6) };
  const live = Int32Array.from(range(lanes), (lane) => [0, width][lane % 5] ?? random.integer(0, width + 1));
  const beams = range(lanes).flatMap((lane) => {
    const rows = randomBeams(random, { width, length }).beams;
    for (const row of range(width)) rows[row * (length + 1)] = 100 + lane;
    return Array.from(rows.fill(0, at(live, lane) * (length + 1))); // dead rows as beam search leaves them
  });
  const isLive = (i: number): boolean =>
    Math.floor(i / (length + 1)) % width < at(live, Math.floor(i / (length + 1) / width));
  const values = random.pick([[0], [-0.5, -1, -1, -2, -3, -Infinity], range(20).map(() => random.floats(1)[0] ?? 0)]);
  const all = 1 + width * length;
  return {
    beams: Int32Array.from(beams),
    scores: Float32Array.from(beams, (_, i) => (isLive(i) ? random.pick(values) : NaN)),
    budget: random.pick([all, random.integer(1, all + 1)]),
    least: random.pick([-Infinity, -Infinity, -1, -3, 5]),
    root: Int32Array.from(range(lanes), (lane) => 100 + lane),
    live,
    width,
    length,
  };
}

/** Each lane's trie, in the arrays that the op fills. */
export function tries({ beams, scores, root, live, width, length, budget, least }: TreePackArgs): Trees {
  const [lanes, columns] = [live.length, length + 1];
  const unwritten = (count: number): Int32Array => new Int32Array(count).fill(UNWRITTEN);
  const [token, parent, depth] = [unwritten(lanes * budget), unwritten(lanes * budget), unwritten(lanes * budget)];
  const unpack = unwritten(lanes * width * columns);
  const nodes = Int32Array.from(live, (rows, lane) => {
    const [own, ownScores] = [beams.subarray(lane * width * columns), scores.subarray(lane * width * columns)];
    const tree =
      rows === 0
        ? { token: ints(at(root, lane)), parent: ints(-1), depth: ints(0), unpack: ints() }
        : pruned(trie({ beams: own, scores: ownScores, width: rows, length }), budget, least);
    token.set(tree.token, lane * budget);
    parent.set(tree.parent, lane * budget);
    depth.set(tree.depth, lane * budget);
    unpack.set(tree.unpack, lane * width * columns);
    return tree.token.length;
  });
  return { token, parent, depth, unpack, nodes };
}

/** The rows of a pass as the contract of tree_rows has them, one after the other. */
export function rowsOf(p: TreeRowsArgs): TreeRows {
  const out = (each = 1): Int32Array => new Int32Array(p.rows * each).fill(UNWRITTEN);
  const y: TreeRows = {
    ...{ token: out(), position: out(), slot: out(), sequence: out(), context: out() },
    ...{ tailBegin: out(), tailSlots: out(p.tailStride), choosePosition: out(), parent: out() },
  };
  p.nodes.forEach((nodes, lane) => {
    const [first, committed] = [at(p.begin, lane), at(p.committed, lane)];
    for (const n of range(at(p.begin, lane + 1) - first)) {
      // The path from the root to this node; a row that is no node sees nothing.
      const path = n < nodes ? [n] : [];
      for (let node = n; n < nodes && node > 0; path.unshift(node)) node = at(p.parent, lane * p.budget + node);
      const position = n < nodes ? committed + path.length - 1 : -1;
      const row = first + n;
      y.token[row] = n < nodes ? at(p.token, lane * p.budget + n) : 0;
      y.position[row] = position;
      y.choosePosition[row] = position + 1;
      y.context[row] = n < nodes ? committed : 0;
      y.slot[row] = n < nodes ? committed + n : -1;
      y.sequence[row] = p.firstSequence + lane;
      y.tailBegin[row] = row * p.tailStride;
      y.tailSlots.set(
        path.map((node) => committed + node),
        row * p.tailStride,
      );
      y.parent[row] = n < nodes ? at(p.parent, lane * p.budget + n) : -1;
    }
  });
  return y;
}

/** From the root on, the first child that holds the chosen token. */
export function walk(token: Int32Array, parent: Int32Array, chosen: Int32Array): number[] {
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

/** Mostly a token of some child, so that walks get long; sometimes anything, sometimes -1. */
export function randomChoices(random: Random, token: Int32Array, parent: Int32Array): Int32Array {
  return token.map((_, node) => {
    const children = range(token.length).filter((child) => at(parent, child) === node);
    if (children.length > 0 && random.uniform() < 0.8) return at(token, random.pick(children));
    return random.integer(-1, 8);
  });
}

/** tree_pack on all beams of one lane, cut to the nodes made. */
export function packTree(level: string, { beams, width, length }: Beams): Tree {
  const scores = new Float32Array(beams.length);
  const all = { scores, budget: 1 + width * length, least: -Infinity };
  const trees = ops.treePack(level, 1, { beams, root: beams.slice(0, 1), live: ints(width), width, length, ...all });
  const nodes = at(trees.nodes, 0);
  const cut = (key: 'token' | 'parent' | 'depth'): Int32Array => trees[key].slice(0, nodes);
  return { token: cut('token'), parent: cut('parent'), depth: cut('depth'), unpack: trees.unpack };
}

/** The path that tree_accept walks down one tree. */
export function acceptPath(
  level: string,
  tree: { token: Int32Array; parent: Int32Array; chosen: Int32Array },
): Int32Array {
  const nodes = tree.token.length;
  const y = ops.treeAccept(level, 1, { ...tree, begin: ints(0, nodes), stride: nodes });
  return y.path.slice(0, at(y.pathLength, 0));
}
