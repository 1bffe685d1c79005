import { expect, it } from 'vitest';

import { at, range, rowOf } from '../../kit/arrays.js';
import { encode } from '../../kit/bf16.js';
import { expectSameBytes, expectSameNumbers } from '../../kit/compare.js';
import type { BeamArgs, BeamResult, TopRows } from '../../kit/ops.js';
import { Random } from '../../kit/random.js';
import { FINEST } from './cases.js';
import { describeLevels, ops, rounded, trials } from './levels.js';
import { UNWRITTEN } from './trees.js';

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
  let scores = new Float32Array(columns);
  let prefixes: number[][] = [[]];
  for (let step = 1; step <= length; step++) {
    const rows = prefixes.length;
    const top = headTop(
      level,
      prefixes.map((tokens) => toyLogits(seed, tokens, vocab)),
      width,
    );
    const state = Float32Array.from(prefixes.flatMap((tokens) => range(length).map((i) => tokens[i] ?? -1)));
    const args: BeamArgs = { ...top, scores, beams, state, rows, width, columns, step, hidden: length };
    const next = ops.beam(level, 1, idMap === undefined ? args : { ...args, idMap });
    const live = at(next.live, 0);
    beams = next.beams.slice(0, live * columns);
    scores = next.scores.slice(0, live * columns);
    prefixes = range(live).map((row) => {
      const parent = Array.from(next.state.subarray(row * length, row * length + step - 1));
      const token = at(beams, row * columns + step);
      return [...parent, idMap === undefined ? token : idMap.indexOf(token)];
    });
  }
  return prefixes.map((tokens, row) => {
    const stored = Array.from(beams.subarray(row * columns, (row + 1) * columns));
    expect(stored).toEqual([7, ...tokens.map((token) => (idMap === undefined ? token : at(idMap, token)))]);
    return { tokens, score: at(scores, row * columns + length) };
  });
}

/** A lane of a search over several: the beams kept, and how many rows were live after each step. */
interface LaneOfBeams {
  beams: Beam[];
  lives: number[];
}

/**
 * The search of each seed as a lane of its own, as the drafter does it: rows that died stay, and are extended like the
 * others, by logits that would win.
 */
function searchLanes(level: string, seeds: number[], vocab: number, width: number, length: number): LaneOfBeams[] {
  const [lanes, columns] = [seeds.length, length + 1];
  const root = Int32Array.from(seeds, () => 7);
  let { scores, beams, state } = ops.beamStart(level, 1, { root, columns, hidden: length });
  expectSameBytes(state, new Float32Array(lanes * length));
  const lives = seeds.map((): number[] => []);
  for (let step = 1; step <= length; step++) {
    const rows = scores.length / lanes / columns;
    const logits = range(lanes * rows).map((row) => {
      const prefix = Array.from(beams.subarray(row * columns + 1, row * columns + step));
      const own = toyLogits(at(seeds, Math.floor(row / rows)), prefix, vocab);
      return Number.isNaN(at(scores, row * columns + step - 1)) ? own.map((_, i) => (i === 0 ? 9 : -9)) : own;
    });
    // What a cell would make of it: the state holds the tokens of its beam.
    state = Float32Array.from(range(lanes * rows * length), (i) => {
      const [row, depth] = [Math.floor(i / length), i % length];
      return depth < step - 1 ? at(beams, row * columns + depth + 1) : -1;
    });
    const args = { ...headTop(level, logits, width), scores, beams, state, lanes, rows, width, columns, step };
    const next = ops.beam(level, 1, { ...args, hidden: length });
    ({ scores, beams } = next);
    lives.forEach((own, lane) => own.push(at(next.live, lane)));
    for (const row of range(lanes * width)) {
      const live = row % width < at(next.live, Math.floor(row / width));
      expect(Number.isNaN(at(scores, row * columns + step))).toBe(!live);
      const tokens = beams.subarray(row * columns + 1, row * columns + step);
      expectSameNumbers(next.state.subarray(row * length, row * length + step - 1), tokens, 'state');
      if (!live) expectSameNumbers(next.state.subarray(row * length, (row + 1) * length), new Float32Array(length));
    }
  }
  return lives.map((own, lane) => {
    const kept = range(own.at(-1) ?? 0).map((row) => lane * width + row);
    const tokens = (row: number): number[] => Array.from(beams.subarray(row * columns + 1, (row + 1) * columns));
    return {
      beams: kept.map((row) => ({ tokens: tokens(row), score: at(scores, row * columns + length) })),
      lives: own,
    };
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
    const score = at(args.scores, parent * args.columns + args.step - 1);
    return { parent, token, total: token < 0 ? NaN : Math.fround(score + step), i };
  });
  const usable = totals.filter(({ total }) => !Number.isNaN(total));
  usable.sort((a, b) => (a.total === b.total ? a.i - b.i : b.total - a.total));
  return usable.slice(0, args.width);
}

function expectContract(args: BeamArgs, y: BeamResult): void {
  const expected = sorted(args);
  expectSameNumbers(y.live, [expected.length]);
  const { columns, step, hidden, width } = args;
  expected.forEach(({ parent, token, total }, row) => {
    const scores = [...args.scores.subarray(parent * columns, parent * columns + step), total];
    expectSameNumbers(y.scores.subarray(row * columns, row * columns + step + 1), scores);
    const tokens = [...args.beams.subarray(parent * columns, parent * columns + step), token];
    expectSameNumbers(y.beams.subarray(row * columns, row * columns + step + 1), tokens);
    expectSameBytes(
      y.state.slice(row * hidden, (row + 1) * hidden),
      args.state.slice(parent * hidden, (parent + 1) * hidden),
    );
  });
  for (const row of range(width - expected.length, expected.length)) {
    expectSameNumbers(y.scores.subarray(row * columns, row * columns + step + 1), new Float32Array(step + 1).fill(NaN));
    expectSameNumbers(y.beams.subarray(row * columns, row * columns + step + 1), new Int32Array(step + 1));
    expectSameNumbers(rowOf(y.state, hidden, row), new Float32Array(hidden));
  }
}

interface Shape {
  rows: number;
  width: number;
  columns: number;
  step: number;
  hidden: number;
}

/** A step with ties, missing tokens, infinities, NaN and dead rows; all rows are dead where `dead`. */
function randomStep(random: Random, shape: Shape, dead = false): BeamArgs {
  const { rows, width, columns, step, hidden } = shape;
  const score = (): number => random.pick([0, -1, -1, -50000, -Infinity, NaN]);
  const values = [0, 1, 1, 2, -1, NaN, -Infinity, Infinity];
  return {
    ...shape,
    token: random.integers(rows * width, -1, 20),
    logit: Float32Array.from(range(rows * width), () => random.pick(values)),
    logSumExp: Float32Array.from(range(rows), () => random.pick([2, 3, 3, NaN])),
    scores: Float32Array.from(range(rows * columns), (i) => (dead && i % columns === step - 1 ? NaN : score())),
    beams: random.integers(rows * columns, 0, 100),
    state: random.floats(rows * hidden),
  };
}

/** The steps of lanes as one. */
function joined(lanes: BeamArgs[]): BeamArgs {
  const floats = (key: 'logit' | 'logSumExp' | 'scores' | 'state'): Float32Array =>
    Float32Array.from(lanes.flatMap((lane) => Array.from(lane[key])));
  const integers = (key: 'token' | 'beams'): Int32Array =>
    Int32Array.from(lanes.flatMap((lane) => Array.from(lane[key])));
  return {
    ...at(lanes, 0),
    lanes: lanes.length,
    ...{ token: integers('token'), beams: integers('beams'), state: floats('state') },
    ...{ logit: floats('logit'), logSumExp: floats('logSumExp'), scores: floats('scores') },
  };
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
      const args = randomStep(random, { rows, width, columns: 4, hidden: 3, step: random.integer(1, 4) });
      expectContract(args, ops.beam(level, 1, args));
    }
  });
  it.each([1, 2, 3, 8, 33])('gives each of %d lanes the bits that it gets alone', (lanes) => {
    const random = new Random(lanes);
    for (let trial = 0; trial < trials(40, 8); trial++) {
      const [rows, width] = [random.integer(1, 9), random.integer(1, 9)];
      const shape = { rows, width, columns: 4, hidden: random.pick([3, 8]), step: random.integer(1, 4) };
      const args = range(lanes).map((lane) => randomStep(random, shape, lane % 4 === 1));
      const y = ops.beam(level, 1, joined(args));
      args.forEach((own, lane) => {
        const alone = ops.beam(level, 1, own);
        for (const key of ['scores', 'beams', 'state', 'live'] as const) {
          const each = alone[key].length;
          expectSameBytes(y[key].slice(lane * each, (lane + 1) * each), alone[key], `in ${key} of lane ${lane}`);
        }
      });
    }
  });
  it('starts each lane with its root, and writes no more', () => {
    for (const lanes of [1, 33]) {
      const root = Int32Array.from(range(lanes), (lane) => 5 + lane);
      const y = ops.beamStart(level, 1, { root, columns: 3, hidden: 300 });
      const empty = at(new Float32Array(Int32Array.of(UNWRITTEN).buffer), 0);
      expectSameNumbers(
        y.scores,
        range(lanes).flatMap(() => [0, empty, empty]),
      );
      expectSameNumbers(y.state, new Float32Array(lanes * 300));
      expectSameNumbers(
        y.beams,
        range(lanes).flatMap((lane) => [5 + lane, UNWRITTEN, UNWRITTEN]),
      );
    }
  });
  // With 2 or 3 tokens, most rows of the first steps are dead.
  it.each([
    [2, 5, 4, 1],
    [2, 12, 3, 6],
    [3, 9, 3, 33],
  ])('lets no dead row revive: %d tokens, width %d, %d steps, %d lanes', (vocab, width, length, lanes) => {
    const seeds = range(lanes, 20);
    const found = searchLanes(level, seeds, vocab, width, length);
    found.forEach(({ beams, lives }, lane) => {
      expect(beams).toEqual(search(level, at(seeds, lane), vocab, width, length));
      expect(lives).toEqual(range(length, 1).map((step) => Math.min(width, vocab ** step)));
    });
  });
  it('drops a row whose logits are NaN and keeps the others; all NaN leaves no beam', () => {
    const good = Float32Array.of(1, 2, 3);
    const nan = new Float32Array(3).fill(NaN);
    const rest = { scores: new Float32Array(4), beams: new Int32Array(4), state: Float32Array.of(1, 2) };
    const shape = { rows: 2, width: 2, columns: 2, step: 1, hidden: 1 };
    const mixed = ops.beam(level, 1, { ...headTop(level, [nan, good], 2), ...rest, ...shape });
    expectSameNumbers(mixed.live, [2]);
    expectSameNumbers(mixed.beams, [0, 2, 0, 1]);
    expectSameNumbers(mixed.state, [2, 2]);
    // One NaN makes the row's log-sum-exp NaN, and so all of its extensions unusable.
    const partial = ops.beam(level, 1, { ...headTop(level, [Float32Array.of(1, NaN, 3), good], 2), ...rest, ...shape });
    expectSameNumbers(partial.state, [2, 2]);
    const none = ops.beam(level, 1, { ...headTop(level, [nan, nan], 2), ...rest, ...shape });
    expectSameNumbers(none.live, [0]);
  });
});
