import { expect, it } from 'vitest';

import { at, range } from '../../kit/arrays.js';
import { encode } from '../../kit/bf16.js';
import { expectSameBytes, expectSameNumbers } from '../../kit/compare.js';
import type { BeamArgs, BeamResult, TopRows } from '../../kit/ops.js';
import { Random } from '../../kit/random.js';
import { FINEST } from './cases.js';
import { describeLevels, ops, rounded } from './levels.js';

interface Beam {
  tokens: number[];
  score: number;
}

/** Logits of the toy drafter after a prefix: any fixed function will do, of numbers that the head below can hand on. */
function toyLogits(seed: number, tokens: number[], vocab: number): Float32Array {
  const random = new Random(tokens.reduce((hash, token) => (hash * 31 + token + 1) % 1000003, seed));
  return rounded(FINEST, random.floats(vocab, 2));
}

/** The head as an identity matrix, so that logits go through the op as they are. */
function headTop(level: string, rows: Float32Array[], top: number): TopRows {
  const vocab = at(rows, 0).length;
  const source = new Float32Array(vocab * vocab).map((_, i) => (i % (vocab + 1) === 0 ? 1 : 0));
  const head = { source: encode(FINEST, source), dtype: FINEST, rows: vocab, cols: vocab };
  return ops.headTop(level, 1, {
    z: Float32Array.from(rows.flatMap((r) => Array.from(r))),
    head,
    rows: rows.length,
    top,
  });
}

/** Beam search by the ops; the state of a beam is its own tokens, so that gathering is seen. */
function search(level: string, seed: number, vocab: number, width: number, length: number, idMap?: Int32Array): Beam[] {
  const columns = length + 1;
  let beams = Int32Array.from(range(columns), () => 7);
  let score = Float32Array.of(0);
  let prefixes: number[][] = [[]];
  for (let step = 1; step <= length; step++) {
    const rows = prefixes.length;
    const top = headTop(
      level,
      prefixes.map((tokens) => toyLogits(seed, tokens, vocab)),
      width,
    );
    const state = Float32Array.from(prefixes.flatMap((tokens) => range(length).map((i) => tokens[i] ?? -1)));
    const args: BeamArgs = { ...top, score, beams, state, rows, width, columns, step, hidden: length };
    const next = ops.beam(level, 1, idMap === undefined ? args : { ...args, idMap });
    beams = next.beams.slice(0, next.live * columns);
    score = next.score.slice(0, next.live);
    prefixes = range(next.live).map((row) => {
      const parent = Array.from(next.state.subarray(row * length, row * length + step - 1));
      const token = at(beams, row * columns + step);
      return [...parent, idMap === undefined ? token : idMap.indexOf(token)];
    });
  }
  return prefixes.map((tokens, row) => {
    const stored = Array.from(beams.subarray(row * columns, (row + 1) * columns));
    expect(stored).toEqual([7, ...tokens.map((token) => (idMap === undefined ? token : at(idMap, token)))]);
    return { tokens, score: at(score, row) };
  });
}

/** The same by enumerating every extension of every kept beam in float64; undefined when the choice is a near-tie. */
function enumerate(seed: number, vocab: number, width: number, length: number): Beam[] | undefined {
  let beams: Beam[] = [{ tokens: [], score: 0 }];
  for (let step = 1; step <= length; step++) {
    const all = beams.flatMap(({ tokens, score }) => {
      const logits = Array.from(toyLogits(seed, tokens, vocab));
      const norm = Math.log(logits.reduce((sum, x) => sum + Math.exp(x), 0));
      return logits.map((x, token) => ({ tokens: [...tokens, token], score: score + x - norm }));
    });
    all.sort((a, b) => b.score - a.score);
    const gaps = all.slice(0, width + 1).map((beam, i) => (all[i - 1]?.score ?? Infinity) - beam.score);
    if (gaps.some((gap) => gap < 1e-4)) return undefined;
    beams = all.slice(0, width);
  }
  return beams;
}

function expectSameBeams(actual: Beam[], expected: Beam[]): void {
  expect(actual.map((beam) => beam.tokens)).toEqual(expected.map((beam) => beam.tokens));
  actual.forEach((beam, i) => {
    expect(beam.score).toBeCloseTo(at(expected, i).score, 4);
  });
}

/** The contract in fp32, by sorting: totals descending, ties by row, then by rank in the row. */
function sorted(args: BeamArgs): { parent: number; token: number; total: number }[] {
  const totals = Array.from(args.token, (token, i) => {
    const parent = Math.floor(i / args.width);
    const step = Math.fround(at(args.logit, i) - at(args.logSumExp, parent));
    return { parent, token, total: token < 0 ? NaN : Math.fround(at(args.score, parent) + step), i };
  });
  const usable = totals.filter(({ total }) => !Number.isNaN(total));
  usable.sort((a, b) => (a.total === b.total ? a.i - b.i : b.total - a.total));
  return usable.slice(0, args.width);
}

function expectContract(args: BeamArgs, y: BeamResult): void {
  const expected = sorted(args);
  expect(y.live).toBe(expected.length);
  const { columns, step, hidden } = args;
  expected.forEach(({ parent, token, total }, row) => {
    expect(at(y.score, row)).toBe(total);
    const tokens = [...args.beams.subarray(parent * columns, parent * columns + step), token];
    expectSameNumbers(y.beams.subarray(row * columns, row * columns + step + 1), tokens);
    expectSameBytes(
      y.state.slice(row * hidden, (row + 1) * hidden),
      args.state.slice(parent * hidden, (parent + 1) * hidden),
    );
  });
}

describeLevels('beam search', (level) => {
  it('keeps the beams that an enumeration in float64 keeps', () => {
    let compared = 0;
    for (let seed = 0; seed < 120; seed++) {
      const [vocab, width, length] = [2 + (seed % 6), 1 + (seed % 5), 1 + (seed % 4)];
      const expected = enumerate(seed, vocab, width, length);
      if (expected === undefined) continue;
      compared++;
      expectSameBeams(search(level, seed, vocab, width, length), expected);
    }
    expect(compared).toBeGreaterThan(80);
  });
  it('starts with fewer beams than its width when the vocabulary is smaller', () => {
    const lives = [1, 2, 3].map((length) => search(level, 3, 2, 5, length).length);
    expect(lives).toEqual([2, 4, 5]);
    const all = enumerate(3, 2, 100, 3);
    expectSameBeams(search(level, 3, 2, 64, 3), all ?? []);
  });
  it('writes target ids through the map', () => {
    const idMap = Int32Array.of(900, 3, 77, 12, 5);
    const expected = enumerate(11, 5, 4, 3);
    expectSameBeams(search(level, 11, 5, 4, 3, idMap), expected ?? []);
  });
  it('obeys its contract in fp32 for ties, missing tokens, infinities and NaN', () => {
    const random = new Random(5);
    for (let trial = 0; trial < 300; trial++) {
      // Now and then more extensions than a kernel compares with each other.
      const most = trial % 30 === 29 ? 65 : 9;
      const [rows, width] = [random.integer(1, most), random.integer(1, most)];
      const [columns, hidden] = [4, 3];
      const values = [0, 1, 1, 2, -1, NaN, -Infinity, Infinity];
      const args: BeamArgs = {
        ...{ rows, width, columns, hidden, step: random.integer(0, columns) },
        token: random.integers(rows * width, -1, 20),
        logit: Float32Array.from(range(rows * width), () => random.pick(values)),
        logSumExp: Float32Array.from(range(rows), () => random.pick([2, 3, 3, NaN])),
        score: Float32Array.from(range(rows), () => random.pick([0, -1, -1, -50000, -Infinity])),
        beams: random.integers(rows * columns, 0, 100),
        state: random.floats(rows * hidden),
      };
      expectContract(args, ops.beam(level, 1, args));
    }
  });
  it('drops a row whose logits are NaN and keeps the others; all NaN leaves no beam', () => {
    const good = Float32Array.of(1, 2, 3);
    const nan = new Float32Array(3).fill(NaN);
    const rest = { score: new Float32Array(2), beams: new Int32Array(4), state: Float32Array.of(1, 2) };
    const shape = { rows: 2, width: 2, columns: 2, step: 1, hidden: 1 };
    const mixed = ops.beam(level, 1, { ...headTop(level, [nan, good], 2), ...rest, ...shape });
    expect(mixed.live).toBe(2);
    expectSameNumbers(mixed.beams, [0, 2, 0, 1]);
    expectSameNumbers(mixed.state, [2, 2]);
    // One NaN makes the row's log-sum-exp NaN, and so all of its extensions unusable.
    const partial = ops.beam(level, 1, { ...headTop(level, [Float32Array.of(1, NaN, 3), good], 2), ...rest, ...shape });
    expectSameNumbers(partial.state, [2, 2]);
    expect(ops.beam(level, 1, { ...headTop(level, [nan, nan], 2), ...rest, ...shape }).live).toBe(0);
  });
});
