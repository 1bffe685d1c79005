/** Penalties, biases and bans on logits, against the definition of each, in fp32 step by step: all results are exact. */
import { expect, it } from 'vitest';

import { at, range } from '../../kit/arrays.js';
import { differingBytes, expectSameBytes } from '../../kit/compare.js';
import type { AdjustArgs } from '../../kit/ops.js';
import { Random } from '../../kit/random.js';
import { describeLevels, ops, PROPERTIES, trials } from './levels.js';
import { randomBeams, trie } from './trees.js';

interface Entry {
  id: number;
  generated: number;
  bias: number;
  seen: boolean;
  banned: boolean;
  ending: boolean;
}

interface Lane {
  repetition: number;
  presence: number;
  frequency: number;
  endingDepth: number;
  keeps: boolean;
  entries: Entry[];
  token: number[];
  parent: number[];
  logits: Float32Array[];
}

const f = Math.fround;

/** What a lane's rows become, id by id over the whole vocabulary. */
function reference(lane: Lane, vocab: number): Float32Array[] {
  const known = new Map(lane.entries.map((entry) => [entry.id, entry]));
  return lane.logits.map((logits, node) => {
    const path: number[] = [];
    for (let n = node; at(lane.parent, n) >= 0; n = at(lane.parent, n)) path.push(at(lane.token, n));
    return Float32Array.from(range(vocab), (id) => {
      const entry = known.get(id);
      const drafted = path.filter((token) => token === id).length;
      const generated = (entry?.generated ?? 0) + drafted;
      let x = at(logits, id);
      if (entry?.banned === true || (entry?.ending === true && path.length < lane.endingDepth)) return NaN;
      if (entry?.seen === true || drafted > 0) x = x > 0 ? f(x / f(lane.repetition)) : f(x * f(lane.repetition));
      x = f(x - f(f(lane.frequency) * generated));
      if (generated > 0) x = f(x - f(lane.presence));
      return f(x + f(entry?.bias ?? 0));
    });
  });
}

function argsOf(lanes: Lane[], vocab: number): AdjustArgs {
  const begin = [0];
  for (const { token } of lanes) begin.push(at(begin, begin.length - 1) + token.length);
  const entries = lanes.flatMap((lane) => lane.entries);
  const logits = new Float32Array(at(begin, lanes.length) * vocab);
  lanes
    .flatMap((lane) => lane.logits)
    .forEach((row, i) => {
      logits.set(row, i * vocab);
    });
  return {
    ...{ logits, vocab, begin: Int32Array.from(begin) },
    nodeToken: Int32Array.from(lanes.flatMap((lane) => lane.token)),
    nodeParent: Int32Array.from(lanes.flatMap((lane) => lane.parent)),
    repetition: Float32Array.from(lanes, (lane) => lane.repetition),
    presence: Float32Array.from(lanes, (lane) => lane.presence),
    frequency: Float32Array.from(lanes, (lane) => lane.frequency),
    endingDepth: Int32Array.from(lanes, (lane) => lane.endingDepth),
    entries: Int32Array.from(lanes, (lane) => lane.entries.length),
    keeps: Int32Array.from(lanes, (lane) => (lane.keeps ? 1 : 0)),
    id: Int32Array.from(entries, (entry) => entry.id),
    generated: Int32Array.from(entries, (entry) => entry.generated),
    bias: Float32Array.from(entries, (entry) => entry.bias),
    flags: Int32Array.from(entries, (e) => (e.seen ? 1 : 0) + (e.banned ? 2 : 0) + (e.ending ? 4 : 0)),
  };
}

const ODD = [NaN, Infinity, -Infinity, 0, -0, 1e-45, 3.4e38];

function randomLane(random: Random, vocab: number, shape?: { width: number; length: number }): Lane {
  const plain = random.uniform() < 0.2;
  const { token, parent } = trie(randomBeams(random, shape));
  const entries = range(plain ? 0 : random.integer(0, Math.min(vocab, random.pick([3, 40, 1200]))));
  const ids = [...random.permutation(vocab).subarray(0, entries.length)].sort((a, b) => a - b);
  const penalizes = !plain && random.uniform() < 0.8;
  return {
    repetition: penalizes ? random.pick([1, 1.1, 0.7, 2, 100, 0.01]) : 1,
    presence: penalizes ? random.pick([0, 0.5, -2, 1.7]) : 0,
    frequency: penalizes ? random.pick([0, 0.3, 2, -0.9]) : 0,
    endingDepth: random.integer(0, 4),
    keeps: random.uniform() < 0.6,
    entries: entries.map((i) => {
      const generated = penalizes ? random.pick([0, 0, 1, 3, 77]) : 0;
      return {
        ...{ id: at(ids, i), generated, seen: generated > 0 || random.uniform() < 0.3 },
        bias: random.pick([0, 0, -100, 100, 0.1]),
        banned: random.uniform() < 0.1,
        ending: random.uniform() < 0.1,
      };
    }),
    token: Array.from(token, (id) => id % vocab),
    parent: Array.from(parent),
    logits: Array.from(token, () =>
      random.floats(vocab, 4).map((x) => (random.uniform() < 0.05 ? random.pick(ODD) : x)),
    ),
  };
}

/** -0 and NaN count by what they mean: neither changes which token is chosen. */
const meaning = (x: ArrayLike<number>): number[] => Array.from(x, (value) => (value === 0 ? 0 : value));

describeLevels('adjust', (level) => {
  it('gives every node the logits of its own history, and puts back every bit', () => {
    const random = new Random(31);
    for (let trial = 0; trial < trials(120, 6); trial++) {
      const vocab = random.pick([9, 61, 1031]);
      const lanes = range(random.pick([1, 2, 5])).map(() => randomLane(random, vocab));
      const args = argsOf(lanes, vocab);
      const { adjusted, undone } = ops.adjust(level, 1 + (trial % 4), args);
      const expected = lanes.flatMap((lane) => reference(lane, vocab));
      expected.forEach((row, i) => {
        expect(meaning(adjusted.subarray(i * vocab, (i + 1) * vocab)), `trial ${trial}, row ${i}`).toEqual(
          meaning(row),
        );
      });
      lanes.forEach((lane, l) => {
        const [from, to] = [at(args.begin, l) * vocab, at(args.begin, l + 1) * vocab];
        const then = lane.keeps ? args.logits : adjusted;
        expectSameBytes(undone.slice(from, to), then.slice(from, to), `trial ${trial}, lane ${l}`);
      });
    }
  });

  it('touches nothing but the ids that a lane names or drafts', () => {
    const random = new Random(32);
    const vocab = 200;
    const neutral: Lane = { ...randomLane(random, vocab, { width: 4, length: 3 }), entries: [], keeps: true };
    const lanes: Lane[] = [{ ...neutral, repetition: 1, presence: 0, frequency: 0 }];
    const args = argsOf(lanes, vocab);
    expectSameBytes(ops.adjust(level, 1, args).adjusted, args.logits);
    const penalized = argsOf([{ ...neutral, repetition: 1.5, presence: 0, frequency: 0 }], vocab);
    const { adjusted } = ops.adjust(level, 1, penalized);
    const changed = range(args.logits.length).filter((i) => !Object.is(at(adjusted, i), at(args.logits, i)));
    const tokens = new Set(neutral.token.slice(1));
    expect(changed.length).toBeGreaterThan(0);
    expect(changed.filter((i) => !tokens.has(i % vocab))).toEqual([]);
  });

  it('gives a lane the same bits beside any others and in any order of the work', () => {
    const random = new Random(33);
    const vocab = 97;
    const lanes = range(7).map(() => randomLane(random, vocab));
    const args = argsOf(lanes, vocab);
    const all = ops.adjust(level, 1, args).adjusted;
    for (const order of PROPERTIES.orders) expectSameBytes(ops.adjust(level, order, args).adjusted, all);
    lanes.forEach((lane, l) => {
      const alone = ops.adjust(level, 1, argsOf([lane], vocab)).adjusted;
      expectSameBytes(all.slice(at(args.begin, l) * vocab, at(args.begin, l + 1) * vocab), alone, `lane ${l}`);
    });
  });

  it('leaves rows that no lane has as they are, and lanes without rows aside', () => {
    const random = new Random(35);
    const vocab = 61;
    const padding: Lane = { ...randomLane(random, vocab), entries: [], token: [], parent: [], logits: [] };
    const neutral: Lane = { ...padding, repetition: 1, presence: 0, frequency: 0, keeps: false };
    for (let trial = 0; trial < trials(20, 4); trial++) {
      const [a, b, c] = range(3).map(() => ({ ...randomLane(random, vocab), repetition: 1.3, keeps: true }));
      const lanes = [a, neutral, b, c, ...(trial % 2 === 0 ? [] : [neutral])] as Lane[];
      const own = argsOf(lanes, vocab);
      const none = random.floats(3 * vocab, 4);
      const more = <T extends Float32Array | Int32Array>(list: T, add: ArrayLike<number>): T =>
        (list.constructor as typeof Int32Array).from([...list, ...Array.from(add)]) as T;
      const args = {
        ...own,
        logits: more(own.logits, none),
        nodeToken: more(own.nodeToken, [0, 1, 2]),
        nodeParent: more(own.nodeParent, [-1, 0, 0]),
      };
      const alone = ops.adjust(level, 1, own);
      const { adjusted, undone } = ops.adjust(level, 1, args);
      const end = own.logits.length;
      expectSameBytes(adjusted.slice(0, end), alone.adjusted);
      expectSameBytes(undone.slice(0, end), own.logits);
      for (const after of [adjusted, undone]) expectSameBytes(after.slice(end), args.logits.slice(end));
    }
  });

  it('control: a history without the ancestors, or with siblings, is noticed', () => {
    const random = new Random(34);
    const vocab = 40;
    let [missed, shared] = [0, 0];
    for (let trial = 0; trial < 5; trial++) {
      const lane = { ...randomLane(random, vocab, { width: 5, length: 4 }), repetition: 1.3, frequency: 0.5 };
      const right = ops.adjust(level, 1, argsOf([lane], vocab)).adjusted;
      const alone = argsOf([{ ...lane, parent: lane.parent.map(() => -1) }], vocab);
      missed += differingBytes(ops.adjust(level, 1, alone).adjusted, right);
      const chain = argsOf([{ ...lane, parent: lane.parent.map((_, node) => node - 1) }], vocab);
      shared += differingBytes(ops.adjust(level, 1, chain).adjusted, right);
    }
    expect(missed).toBeGreaterThan(0);
    expect(shared).toBeGreaterThan(0);
  });
});
