/**
 * The law of the draws. Chi-square at alpha = 1e-6 with fixed seeds, so that a correct build never fails. With 16
 * tokens and 262,144 draws a total-variation error of 0.01 is found with probability over 0.999 (for nearly uniform
 * laws 251,000 draws are enough; for 64 tokens and an error of 0.02, 90,000).
 */
import { describe, expect, it } from 'vitest';

import { at, range } from '../../kit/arrays.js';
import { Random } from '../../kit/random.js';
import { chiSquareTail, lawTest, philox, uniformAt } from '../../kit/statistics.js';
import { LEVELS, ops } from './levels.js';

const ALPHA = 1e-6;

/** Counts of `draws` tokens of the law softmax(logits); position or seed counts up, the other stays. */
function countDraws(level: string, logits: Float32Array, draws: number, by: 'position' | 'seed'): number[] {
  const vocab = logits.length;
  const counts = range(vocab).map(() => 0);
  const batch = 8192;
  const all = new Float32Array(batch * vocab);
  for (let i = 0; i < batch; i++) all.set(logits, i * vocab);
  for (let start = 0; start < draws; start += batch) {
    const numbers = range(batch, start);
    const tokens = ops.sample(level, 2, {
      logits: all,
      vocab,
      temperature: new Float32Array(batch).fill(1),
      topK: new Int32Array(batch),
      topP: new Float32Array(batch).fill(1),
      minP: new Float32Array(batch),
      seed: BigUint64Array.from(numbers, (n) => (by === 'seed' ? BigInt(n) : 42n)),
      position: Int32Array.from(numbers, (n) => (by === 'seed' ? 17 : n)),
    });
    for (const token of tokens) counts[token] = at(counts, token) + 1;
  }
  return counts;
}

function softmax(logits: ArrayLike<number>): number[] {
  const weights = Array.from(logits, Math.exp);
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / total);
}

describe('Philox', () => {
  it.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ])('known answer %j', (counter, key, expected) => {
    expect(Array.from(ops.philox4x32(Uint32Array.from(counter), Uint32Array.from(key)))).toEqual(expected);
    expect(philox(counter, key)).toEqual(expected);
  });
  it('uniform numbers are 53 bits of the block of (position, choice, purpose) under the seed', () => {
    const random = new Random(1);
    for (let i = 0; i < 2000; i++) {
      const seed = (BigInt(random.uint32()) << 32n) | BigInt(random.uint32());
      const position = random.uint32();
      const u = ops.philoxUniform(seed, BigInt(position), 0);
      expect(u).toBe(uniformAt(seed, position));
      expect(u >= 0 && u < 1).toBe(true);
      expect(Number.isInteger(u * 2 ** 53)).toBe(true);
    }
    expect(ops.philoxUniform(7n, 1n, 1)).not.toBe(ops.philoxUniform(7n, 1n, 0));
    expect(ops.philoxUniform(7n, 1n << 32n, 0)).not.toBe(ops.philoxUniform(7n, 0n, 0));
    expect(ops.philoxUniform(7n << 32n, 0n, 0)).not.toBe(ops.philoxUniform(7n, 0n, 0));
  });
  it('uniform numbers are uniform over positions, over seeds, and in neighbouring pairs', () => {
    const draws = 200000;
    const cells = 64;
    const over = (u: (i: number) => number): number => {
      const counts = range(cells).map(() => 0);
      for (let i = 0; i < draws; i++) {
        const cell = Math.floor(u(i) * cells);
        counts[cell] = at(counts, cell) + 1;
      }
      return lawTest(
        counts,
        range(cells).map(() => 1 / cells),
      );
    };
    expect(over((i) => uniformAt(9n, i))).toBeGreaterThan(ALPHA);
    expect(over((i) => uniformAt(BigInt(i), 9))).toBeGreaterThan(ALPHA);
    const pair = (a: number, b: number): number => (Math.floor(a * 8) * 8 + Math.floor(b * 8)) / 64;
    expect(over((i) => pair(uniformAt(9n, 2 * i), uniformAt(9n, 2 * i + 1)))).toBeGreaterThan(ALPHA);
    expect(over((i) => pair(uniformAt(BigInt(i), 0), uniformAt(BigInt(i), 1)))).toBeGreaterThan(ALPHA);
  });
});

describe('the chi-square test itself', () => {
  it('knows quantiles', () => {
    expect(chiSquareTail(3.841458820694124, 1)).toBeCloseTo(0.05, 10);
    expect(chiSquareTail(15.507313055865453, 8)).toBeCloseTo(0.05, 10);
    expect(chiSquareTail(31.41043284423092, 20)).toBeCloseTo(0.05, 10);
    expect(chiSquareTail(51.178597777377, 63)).toBeCloseTo(0.8569899377, 9);
    expect(chiSquareTail(60, 15) / 2.522085078696e-7).toBeCloseTo(1, 6);
  });
});

const level = at(LEVELS, LEVELS.length - 1);

describe('draws follow softmax(logits)', () => {
  it.each([
    ['uniform', 16, 0],
    ['uneven', 16, 1.5],
    ['many tokens', 64, 1],
  ] as const)('%s', (_, vocab, scale) => {
    const logits = new Random(vocab).floats(vocab, scale);
    for (const by of ['position', 'seed'] as const) {
      expect(lawTest(countDraws(level, logits, 262144, by), softmax(logits))).toBeGreaterThan(ALPHA);
    }
  });
  it('control: a law 0.01 away in total variation is rejected', () => {
    const logits = new Float32Array(16);
    const off = range(16).map((i) => 1 / 16 + (i % 2 ? 0.01 : -0.01) / 8);
    expect(lawTest(countDraws(level, logits, 262144, 'position'), off)).toBeLessThan(ALPHA);
  });
});

/** One step of drafting over a toy target: `p` of the target, `q` of the drafter, `beams` of width tokens. */
interface Toy {
  p: number[];
  q: number[];
  beams: number[];
}

function toy(seed: number, width: number): Toy {
  const random = new Random(seed);
  const p = softmax(random.floats(16, 1));
  const q = softmax(random.floats(16, 1));
  const beams = range(16)
    .sort((a, b) => at(q, b) - at(q, a))
    .slice(0, width);
  return { p, q, beams };
}

function drawFrom(law: number[], u: number): number {
  let sum = 0;
  for (let i = 0; i < law.length; i++) {
    sum += at(law, i);
    if (u < sum) return i;
  }
  return law.length - 1;
}

/** The rule of this package: draw from the target at the root; drafting decides nothing. */
function targetRule({ p }: Toy, random: Random): number {
  return drawFrom(p, random.uniform());
}

/** The rule of the reference: accept a beam's token with min(1, p / q), else draw from the rest of p - q. */
function ratioRule({ p, q, beams }: Toy, random: Random): number {
  const accepted = beams.find((token) => random.uniform() < at(p, token) / at(q, token));
  if (accepted !== undefined) return accepted;
  const rest = p.map((x, i) => Math.max(0, x - at(q, i)));
  const total = rest.reduce((a, b) => a + b, 0);
  return drawFrom(
    rest.map((x) => x / total),
    random.uniform(),
  );
}

describe('acceptance rules', () => {
  const pValue = (rule: (one: Toy, random: Random) => number, width: number): number => {
    const one = toy(width, width);
    const random = new Random(100 + width);
    const counts = range(16).map(() => 0);
    for (let i = 0; i < 200000; i++) {
      const token = rule(one, random);
      counts[token] = at(counts, token) + 1;
    }
    return lawTest(counts, one.p);
  };
  it.each([1, 2, 4, 8])('width %d: drawing from the target passes; control: the p/q rule is rejected', (width) => {
    expect(pValue(targetRule, width)).toBeGreaterThan(ALPHA);
    expect(pValue(ratioRule, width)).toBeLessThan(ALPHA);
  });
});
