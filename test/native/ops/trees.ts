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

/** A trie, filled beam by beam. */
export function trie({ beams, width, length }: Beams): Tree {
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

/** Beams of lanes, of which each packs its own number of rows, 0 and all among them. */
export function randomLanes(random: Random, lanes: number): TreePackArgs {
  const { width, length } = { width: random.integer(1, random.pick([4, 12])), length: random.integer(1, 6) };
  const live = Int32Array.from(range(lanes), (lane) => [0, width][lane % 5] ?? random.integer(0, width + 1));
  const beams = range(lanes).flatMap((lane) => {
    const rows = randomBeams(random, { width, length }).beams;
    for (const row of range(width)) rows[row * (length + 1)] = 100 + lane;
    return Array.from(rows.fill(0, at(live, lane) * (length + 1))); // dead rows as beam search leaves them
  });
  return {
    beams: Int32Array.from(beams),
    root: Int32Array.from(range(lanes), (lane) => 100 + lane),
    live,
    width,
    length,
  };
}

/** Each lane's trie, in the arrays that the op fills. */
export function tries({ beams, root, live, width, length }: TreePackArgs): Trees {
  const [lanes, most, columns] = [live.length, 1 + width * length, length + 1];
  const unwritten = (count: number): Int32Array => new Int32Array(count).fill(UNWRITTEN);
  const [token, parent, depth] = [unwritten(lanes * most), unwritten(lanes * most), unwritten(lanes * most)];
  const unpack = unwritten(lanes * width * columns);
  const nodes = Int32Array.from(live, (rows, lane) => {
    const own = beams.subarray(lane * width * columns);
    const tree =
      rows === 0
        ? { token: ints(at(root, lane)), parent: ints(-1), depth: ints(0), unpack: ints() }
        : trie({ beams: own, width: rows, length });
    token.set(tree.token, lane * most);
    parent.set(tree.parent, lane * most);
    depth.set(tree.depth, lane * most);
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
  const most = 1 + p.width * p.length;
  p.nodes.forEach((nodes, lane) => {
    const [first, committed] = [at(p.begin, lane), at(p.committed, lane)];
    for (const n of range(at(p.begin, lane + 1) - first)) {
      // The path from the root to this node; a row that is no node sees nothing.
      const path = n < nodes ? [n] : [];
      for (let node = n; n < nodes && node > 0; path.unshift(node)) node = at(p.parent, lane * most + node);
      const position = n < nodes ? committed + path.length - 1 : -1;
      const row = first + n;
      y.token[row] = n < nodes ? at(p.token, lane * most + n) : 0;
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
      y.parent[row] = n < nodes ? at(p.parent, lane * most + n) : -1;
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
  const trees = ops.treePack(level, 1, { beams, root: beams.slice(0, 1), live: ints(width), width, length });
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
