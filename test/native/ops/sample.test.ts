import { expect, it } from 'vitest';

import { at, ints, range } from '../../kit/arrays.js';
import { expectSameBytes, expectSameNumbers } from '../../kit/compare.js';
import type { SampleArgs } from '../../kit/ops.js';
import { Random } from '../../kit/random.js';
import { uniformAt } from '../../kit/statistics.js';
import { argmaxFaults } from './cases.js';
import { describeLevels, ops, PROPERTIES, trials, withWorkspace } from './levels.js';
import { EXP, topIndices, U } from './reference.js';
import { acceptPath, packTree, randomBeams, walk } from './trees.js';

export interface Spec {
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  seed?: bigint;
}

/** The same logits and settings at each of the positions. */
function repeated(logits: Float32Array, spec: Spec, positions: number[]): SampleArgs {
  const all = new Float32Array(logits.length * positions.length);
  positions.forEach((_, i) => {
    all.set(logits, i * logits.length);
  });
  return {
    logits: all,
    vocab: logits.length,
    temperature: Float32Array.from(positions, () => spec.temperature ?? 0),
    topK: Int32Array.from(positions, () => spec.topK ?? 0),
    topP: Float32Array.from(positions, () => spec.topP ?? 1),
    minP: Float32Array.from(positions, () => spec.minP ?? 0),
    seed: BigUint64Array.from(positions, () => spec.seed ?? 0n),
    position: Int32Array.from(positions),
  };
}

/** The rows of several calls as those of one. */
function joinLanes(lanes: SampleArgs[]): SampleArgs {
  const floats = (key: 'logits' | 'temperature' | 'topP' | 'minP'): Float32Array =>
    Float32Array.from(lanes.flatMap((lane) => Array.from(lane[key])));
  const integers = (key: 'topK' | 'position'): Int32Array =>
    Int32Array.from(lanes.flatMap((lane) => Array.from(lane[key])));
  return {
    ...{ vocab: at(lanes, 0).vocab, logits: floats('logits'), temperature: floats('temperature') },
    ...{ topK: integers('topK'), topP: floats('topP'), minP: floats('minP'), position: integers('position') },
    seed: BigUint64Array.from(lanes.flatMap((lane) => Array.from(lane.seed))),
  };
}

const draw = (level: string, logits: Float32Array, spec: Spec, positions = [0]): number[] =>
  Array.from(ops.sample(level, 1, repeated(logits, spec, positions)));

/**
 * What the filters keep, with their probabilities, in float64: temperature, then top-k, top-p over what is left, min-p
 * over what is left. In order of id without a filter, else by falling probability, ties by lowest id.
 */
function keptLaw(logits: Float32Array, spec: Spec): { id: number; p: number }[] {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  let kept = Array.from(logits, (x, id) => ({ id, p: Math.exp((x - largest) / Math.fround(spec.temperature ?? 1)) }));
  const byK = (spec.topK ?? 0) > 0 && (spec.topK ?? 0) < logits.length;
  const filtered = byK || (spec.topP ?? 1) < 1 || (spec.minP ?? 0) > 0;
  if (filtered) kept.sort((a, b) => b.p - a.p || a.id - b.id);
  if (spec.topK) kept = kept.slice(0, spec.topK);
  const total = kept.reduce((sum, c) => sum + c.p, 0);
  if ((spec.topP ?? 1) < 1) {
    let sum = 0;
    kept = kept.filter((c, i) => {
      const before = sum;
      sum += c.p;
      return i === 0 || before < Math.fround(spec.topP ?? 1) * total;
    });
  }
  if (spec.minP) kept = kept.filter((c) => c.p >= Math.fround(spec.minP ?? 0) * at(kept, 0).p);
  const rest = kept.reduce((sum, c) => sum + c.p, 0);
  return kept.map((c) => ({ id: c.id, p: c.p / rest }));
}

/** The kept id whose share of [0, 1) holds u, and how far u is from the ends of that share. */
function inverse(law: { id: number; p: number }[], u: number): { id: number; margin: number } {
  let sum = 0;
  for (const { id, p } of law) {
    if (u < sum + p) return { id, margin: Math.min(u - sum, sum + p - u) };
    sum += p;
  }
  return { id: at(law, law.length - 1).id, margin: 0 };
}

/** The positions of the smallest and the largest of 2^19 draws under seed 3. */
const ENDS = { low: 0, high: 0, lowest: 1, highest: 0 };
for (let position = 0; position < 2 ** 19; position++) {
  const u = uniformAt(3n, position);
  if (u < ENDS.lowest) Object.assign(ENDS, { lowest: u, low: position });
  if (u > ENDS.highest) Object.assign(ENDS, { highest: u, high: position });
}

const SPECS: Spec[] = [
  { temperature: 1 },
  { temperature: 0.3 },
  { temperature: 1.5 },
  { temperature: 1, topK: 1 },
  { temperature: 1, topK: 7 },
  { temperature: 0.7, topK: 1000 },
  { temperature: 1, topP: 0.9 },
  { temperature: 1.3, topP: 0.35 },
  { temperature: 1, topP: 0 },
  { temperature: 1, minP: 0.1 },
  { temperature: 1, minP: 1 },
  { temperature: 2, topK: 20, topP: 0.8 },
  { temperature: 1.2, topK: 30, minP: 0.05 },
  { temperature: 0.9, topK: 40, topP: 0.95, minP: 0.02 },
];

/** Large enough that a row is shared by the blocks of a kernel, and its threads. */
const LARGE: (Spec & { vocab: number })[] = [
  { vocab: 1000, temperature: 1 },
  { vocab: 1000, temperature: 0.8, topK: 50, topP: 0.9 },
  { vocab: 3001, temperature: 1.1, topP: 0.7 },
  { vocab: 3001, temperature: 1, minP: 0.03 },
  { vocab: 5000, temperature: 1 },
  { vocab: 5000, temperature: 1, topK: 1500 },
  { vocab: 5000, temperature: 1.3, topK: 300, topP: 0.95, minP: 0.01 },
];

describeLevels('sample', (level) => {
  it('is the first of the largest logits at temperature 0; NaN is never chosen', () => {
    expect(argmaxFaults((logits) => at(draw(level, logits, {}), 0))).toEqual([]);
  });
  it('control: an argmax that takes the last of equal logits is noticed', () => {
    const last = (logits: Float32Array): number =>
      logits.reduce((best, x, i) => (best < 0 || x >= at(logits, best) ? i : best), -1);
    expect(argmaxFaults(last)).toContain('1,3,3,2');
    expect(argmaxFaults(last).length).toBeGreaterThan(5);
  });
  it.each(SPECS)('$temperature $topK $topP $minP: every draw is the one that float64 gives', (spec) => {
    const positions = range(trials(2000));
    let near = 0;
    for (const seed of [1n, 0xffffffffffffffffn]) {
      const logits = new Random(Number(seed % 97n)).floats(60, 2);
      logits[11] = at(logits, 10); // a tie
      const law = keptLaw(logits, spec);
      const tokens = draw(level, logits, { ...spec, seed }, positions);
      positions.forEach((position, i) => {
        const { id, margin } = inverse(law, uniformAt(seed, position));
        // Within the error of fp32 weights either neighbour may be meant.
        if (margin < 200 * U) near++;
        else expect(at(tokens, i), `position ${position}`).toBe(id);
      });
    }
    expect(near).toBeLessThan(20);
  });
  it.each(LARGE)('vocabulary $vocab, $temperature $topK $topP $minP: draws as float64 gives them', (spec) => {
    const [vocab, positions, seed] = [spec.vocab, range(40), 9n];
    const logits = new Random(vocab).floats(vocab, 2);
    const law = keptLaw(logits, spec);
    // The error of a weight: of its fp32 argument and of exp. Sums of weights are of more than fp32 precision.
    const largest = Math.max(...logits);
    const mean = law.reduce((sum, { id, p }) => sum + (p * (largest - at(logits, id))) / (spec.temperature ?? 1), 0);
    const error = 2 * (EXP + 2 * U * mean);
    const tokens = draw(level, logits, { ...spec, seed }, positions);
    let near = 0;
    positions.forEach((position, i) => {
      const { id, margin } = inverse(law, uniformAt(seed, position));
      if (margin < error) near++;
      else expect(at(tokens, i), `position ${position}`).toBe(id);
    });
    expect(near).toBeLessThan(8);
  });
  // On a device another exp may part or make equal weights.
  const same = level === 'cuda:host' ? [65, 2049, 16387] : [];
  it.each(same)('chooses as the oracle does of %d ids', (vocab) => {
    const random = new Random(vocab);
    const rows = 12;
    const of = <T>(...values: T[]): T[] => range(rows).map(() => random.pick(values));
    for (const kind of ['spread', 'flat', 'tied', 'spoiled']) {
      const logits = random.floats(rows * vocab, kind === 'flat' ? 1e-3 : 3).map((x) => {
        if (kind === 'tied') return Math.round(x);
        return kind === 'spoiled' ? random.pick([x, x, NaN, -Infinity]) : x;
      });
      const args: SampleArgs = {
        ...{ logits, vocab },
        temperature: Float32Array.from(of(0, 1, 0.7, 1.5, 0.01, 100)),
        topK: Int32Array.from(of(0, 0, 5, 40, 1000, 5000)),
        topP: Float32Array.from(of(1, 0.9, 0.5, 0.999)),
        minP: Float32Array.from(of(0, 0, 0.01, 1, 2, 1e-6)),
        seed: BigUint64Array.from(range(rows), () => BigInt(random.uint32())),
        position: random.integers(rows, 0, 1000),
      };
      const expected = ops.sample('oracle', 1, args);
      for (const workspace of PROPERTIES.workspaces) {
        const tokens = withWorkspace(workspace, () => ops.sample(level, 2, args));
        expectSameNumbers(tokens, Array.from(expected), `${kind}, workspace ${workspace ?? 'as given'}`);
      }
    }
  });
  it('equals greedy with top_k 1, top_p 0, min_p 1, and as temperature falls to 0', () => {
    const random = new Random(8);
    for (const seed of range(30)) {
      const logits = random.floats(50, 3);
      if (seed % 3 === 0) logits.fill(Math.max(...logits), 20, 23); // ties
      const greedy = draw(level, logits, {});
      const settings: Spec[] = [
        { temperature: 1, topK: 1 },
        { temperature: 5, topP: 0 },
        { temperature: 1e-6, topK: 1 },
        { temperature: 1e-45, topP: 0 },
      ];
      for (const spec of settings) expect(draw(level, logits, { ...spec, seed: BigInt(seed) })).toEqual(greedy);
      if (seed % 3 === 0) continue; // tied logits stay equally likely at any temperature
      for (const temperature of [1e-3, 1e-6, 1e-30, 1e-45]) {
        expect(draw(level, logits, { temperature, seed: BigInt(seed) }, range(20))).toEqual(
          range(20).map(() => at(greedy, 0)),
        );
      }
      expect(draw(level, logits, { temperature: 1, minP: 1, seed: BigInt(seed) })).toEqual(greedy);
    }
  });
  it('never chooses NaN or a token of probability 0, whatever the temperature', () => {
    const logits = Float32Array.of(NaN, 1, -Infinity, 2, NaN, 0);
    for (const spec of [{ temperature: 1 }, { temperature: 100, topK: 6 }, { temperature: 3e38, topP: 0.99 }]) {
      expect(new Set(draw(level, logits, spec, range(trials(300, 5))))).toEqual(new Set([1, 3, 5]));
    }
    expect(draw(level, Float32Array.of(NaN, NaN), { temperature: 1 })).toEqual([-1]);
    expect(draw(level, Float32Array.of(NaN, -Infinity, -Infinity), { temperature: 1 })).toEqual([1]);
    expect(draw(level, Float32Array.of(0, Infinity, Infinity, NaN), { temperature: 1 })).toEqual([1]);
  });
  it('chooses for the nodes of a tree as for plain rows, at least where the walk goes', () => {
    const random = new Random(6);
    for (let trial = 0; trial < trials(200, 5); trial++) {
      const [width, length, vocab] = [random.integer(1, 12), random.integer(1, 5), 4];
      const beams = random.integers(width * (length + 1), 0, vocab);
      for (const row of range(width)) beams[row * (length + 1)] = 1;
      const { token, parent, depth } = packTree(level, { beams, width, length });
      const plain: SampleArgs = {
        ...repeated(new Float32Array(vocab), { temperature: trial % 2, seed: BigInt(trial) }, Array.from(depth)),
        logits: random.floats(token.length * vocab),
      };
      const all = ops.sample(level, 1, plain);
      const some = ops.sample(level, 2, {
        ...{ ...plain, nodeToken: token, nodeParent: parent },
        begin: ints(0, token.length),
      });
      const path = acceptPath(level, { token, parent, chosen: all });
      expectSameNumbers(acceptPath(level, { token, parent, chosen: some }), path);
      const wrong = range(token.length).filter(
        (i) => at(some, i) !== at(all, i) && (at(some, i) >= 0 || path.includes(i)),
      );
      expect(wrong).toEqual([]);
    }
  });
  it.each([1, 2, 7, 33])('chooses for the trees of %d lanes what it chooses for each alone', (lanes) => {
    const random = new Random(60 + lanes);
    const vocab = 4;
    for (let trial = 0; trial < trials(40, 8); trial++) {
      const trees = range(lanes).map((lane) => {
        const tree = packTree(
          level,
          randomBeams(random, { width: random.integer(1, 9), length: random.integer(0, 5) }),
        );
        const positions = Array.from(tree.depth, (depth) => 10 * lane + depth);
        const token = tree.token.map((own) => own % vocab);
        const args: SampleArgs = {
          ...repeated(new Float32Array(vocab), { temperature: lane % 2, seed: BigInt(lane + trial) }, positions),
          logits: random.floats(token.length * vocab).fill(NaN, 0, lane % 4 === 2 ? vocab : 0),
        };
        return { ...args, nodeToken: token, nodeParent: tree.parent, begin: ints(0, token.length) };
      });
      const begin = [0];
      for (const { nodeToken } of trees) begin.push(at(begin, begin.length - 1) + nodeToken.length);
      const all = joinLanes(trees);
      const nodes = (key: 'nodeToken' | 'nodeParent'): Int32Array =>
        Int32Array.from(trees.flatMap((tree) => Array.from(tree[key])));
      const tokens = ops.sample(level, 2, {
        ...{ ...all, nodeToken: nodes('nodeToken'), nodeParent: nodes('nodeParent') },
        begin: Int32Array.from(begin),
      });
      const plain = ops.sample(level, 1, all);
      trees.forEach((tree, lane) => {
        const [first, end] = [at(begin, lane), at(begin, lane + 1)];
        const own = tokens.slice(first, end);
        expectSameNumbers(own, ops.sample(level, 1, tree), `lane ${lane}`);
        // -1 is for nodes off the walk, and where there is nothing to choose from.
        const path = walk(tree.nodeToken, tree.nodeParent, plain.slice(first, end));
        path.forEach((node) => {
          expect(at(own, node)).toBe(at(plain, first + node));
        });
        if (lane % 4 === 2) expect(at(own, 0)).toBe(-1);
      });
    }
  });
  it.each([7, 60, 2053, 9001])('chooses of %d ids what it chooses where masked logits are NaN', (vocab) => {
    const random = new Random(90 + vocab);
    const words = Math.ceil(vocab / 32);
    const rows = 12;
    for (let trial = 0; trial < trials(6, 2); trial++) {
      const of = <T>(...values: T[]): T[] => range(rows).map(() => random.pick(values));
      const args: SampleArgs = {
        ...{ logits: random.floats(rows * vocab, 3), vocab },
        temperature: Float32Array.from(of(0, 0, 1, 0.7, 1.5)),
        topK: Int32Array.from(of(0, 0, 5, 40)),
        topP: Float32Array.from(of(1, 0.9, 0.5)),
        minP: Float32Array.from(of(0, 0, 0.01)),
        seed: BigUint64Array.from(range(rows), () => BigInt(random.uint32())),
        position: random.integers(rows, 0, 1000),
      };
      // Dense, sparse, one id alone, none; bits behind the vocabulary are set, too.
      const mask = new Int32Array(4 * words).map((_, i) => {
        const kind = Math.floor(i / words);
        const [a, b, c] = [random.uint32(), random.uint32(), random.uint32()];
        return kind === 0 ? a | b : kind === 1 ? a & b & c : 0;
      });
      const only = random.integer(0, vocab);
      mask[2 * words + (only >> 5)] = 1 << (only & 31);
      const maskIndex = random.integers(rows, -1, 4);
      maskIndex.set([-1, 0, 1, 2, 3]);
      const spoiled = args.logits.map((logit, i) => {
        const [row, id] = [Math.floor(i / vocab), i % vocab];
        const index = at(maskIndex, row);
        return index < 0 || ((mask[index * words + (id >> 5)] ?? 0) >>> (id & 31)) & 1 ? logit : NaN;
      });
      for (const workspace of PROPERTIES.workspaces) {
        withWorkspace(workspace, () => {
          const tokens = ops.sample(level, 2, { ...args, mask, maskIndex });
          expectSameNumbers(tokens, ops.sample(level, 1, { ...args, logits: spoiled }));
          expect([tokens[3], tokens[4]]).toEqual([only, -1]);
          expect(tokens, 'it matters').not.toEqual(ops.sample(level, 1, args));
        });
      }
    }
  });
  it('reaches the first and the last token with u at either end', () => {
    const { low, high, lowest, highest } = ENDS;
    expect(lowest).toBeLessThan(1e-5);
    expect(highest).toBeGreaterThan(1 - 1e-5);
    // The tail tokens weigh more than the distance to the end.
    const logits = Float32Array.from(range(100), (i) => (i === 0 || i === 99 ? Math.log(2e-3) : 0));
    const spec = { temperature: 1, seed: 3n };
    expect(draw(level, logits, spec, [low, high])).toEqual([0, 99]);
    // By falling probability the two tail tokens come last, 99 after 0.
    expect(draw(level, logits, { ...spec, minP: 1e-6 }, [low, high])).toEqual([1, 99]);
    expect(draw(level, logits, { ...spec, topK: 98 }, [low, high])).toEqual([1, 98]);
  });
  it('gives the same bits with two threads, and other draws for another seed or position', () => {
    const args = repeated(new Random(1).floats(64), { temperature: 1, topP: 0.99, seed: 5n }, range(trials(500)));
    expectSameBytes(ops.sample(level, 2, args), ops.sample(level, 1, args));
    const other = { ...args, seed: args.seed.map(() => 6n) };
    const later = { ...args, position: args.position.map((p) => p + 1) };
    const tokens = Array.from(ops.sample(level, 1, args));
    for (const changed of [other, later]) {
      const same = Array.from(ops.sample(level, 1, changed)).filter((token, i) => token === tokens[i]).length;
      expect(same).toBeLessThan(tokens.length / 4); // over a spread-out law
    }
  });
});

describeLevels('logprob', (level) => {
  it('is the log-softmax of the raw logits, and the best in order', () => {
    const random = new Random(2);
    const [vocab, rows, topK] = [77, 9, 12];
    const logits = random.floats(20 * vocab, 5);
    logits.fill(Math.max(...logits.subarray(0, vocab)), 5, 8); // a tie at the top of row 0
    const row = random.integers(rows, 0, 20);
    row[0] = 0;
    const token = random.integers(rows, 0, vocab);
    const y = ops.logprob(level, 2, { logits, vocab, row, token, topK });
    for (const r of range(rows)) {
      const own = logits.subarray(at(row, r) * vocab, (at(row, r) + 1) * vocab);
      const largest = Math.max(...own);
      const norm = largest + Math.log(own.reduce((sum, x) => sum + Math.exp(x - largest), 0));
      const near = (actual: number, id: number): void => {
        const expected = at(own, id) - norm;
        expect(Math.abs(actual - expected)).toBeLessThanOrEqual(1.01 * U * Math.abs(expected) + 1e-13);
      };
      near(at(y.logprob, r), at(token, r));
      const best = topIndices(own, topK);
      expectSameNumbers(y.topToken.subarray(r * topK, (r + 1) * topK), best);
      best.forEach((id, k) => {
        near(at(y.topLogprob, r * topK + k), id);
      });
    }
  });
  it.each([
    [200, 200, 3],
    [2, 9001, 20],
    [2, 5000, 1500],
  ])('gives the same bits in any order of the work: %d rows of %d ids, the best %d', (rows, vocab, topK) => {
    const random = new Random(3);
    const logits = random.floats(rows * vocab);
    const args = { logits, vocab, topK, row: random.permutation(rows), token: random.integers(rows, 0, vocab) };
    const first = ops.logprob(level, 1, args);
    for (const workspace of PROPERTIES.workspaces) {
      const other = withWorkspace(workspace, () => ops.logprob(level, 2, args));
      for (const key of ['logprob', 'topToken', 'topLogprob'] as const) expectSameBytes(other[key], first[key], key);
    }
    const row = logits.subarray(at(args.row, 0) * vocab, (at(args.row, 0) + 1) * vocab);
    expectSameNumbers(first.topToken.subarray(0, topK), topIndices(row, topK));
    const norm = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
    first.topToken.subarray(0, topK).forEach((id, k) => {
      const expected = at(row, id) - norm;
      expect(Math.abs(at(first.topLogprob, k) - expected)).toBeLessThanOrEqual(1.01 * U * Math.abs(expected) + 1e-12);
    });
  });
  it('is the same whether a token is asked for or among the best', () => {
    const logits = new Random(4).floats(33, 3);
    const token = Int32Array.from(range(33));
    const y = ops.logprob(level, 1, { logits, vocab: 33, row: new Int32Array(33), token, topK: 33 });
    range(33).forEach((k) => {
      expect(at(y.topLogprob, k)).toBe(at(y.logprob, at(y.topToken, k)));
    });
    const sum = y.logprob.reduce((total, x) => total + Math.exp(x), 0);
    expect(Math.abs(sum - 1)).toBeLessThan(33 * 4 * U);
  });
  it('takes -Infinity, leaves out NaN, fills up with -1, and may be asked for no tokens', () => {
    const logits = Float32Array.of(0, -Infinity, 0);
    const one = { logits, vocab: 3, row: ints(0, 0), token: ints(1, 2) };
    const y = ops.logprob(level, 1, { ...one, topK: 5 });
    expectSameNumbers(y.logprob, [-Infinity, Math.fround(-Math.LN2)]);
    expectSameNumbers(y.topToken.subarray(0, 5), [0, 2, 1, -1, -1]);
    const half = Math.fround(-Math.LN2);
    expectSameNumbers(y.topLogprob.subarray(0, 5), [half, half, -Infinity, -Infinity, -Infinity]);
    expect(ops.logprob(level, 1, { ...one, topK: 0 }).topToken).toHaveLength(0);
    const spoiled = ops.logprob(level, 1, { ...one, logits: Float32Array.of(NaN, 3, 1), topK: 3 });
    expectSameNumbers(spoiled.topToken.subarray(0, 3), [1, 2, -1]);
  });
});
