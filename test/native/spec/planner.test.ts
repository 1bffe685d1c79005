/** The planner in worlds where it is known how far drafts get and what rounds take. */
import { describe, expect, it } from 'vitest';

import { at, range } from '../../kit/arrays.js';
import { planner, type Shape, type Told } from '../../kit/planner.js';
import { Random } from '../../kit/random.js';

/** What is true of a world: milliseconds, and how far the drafts of a request get. */
interface World {
  forward: (rows: number) => number;
  step: (beams: number) => number;
  /** Of a request in a round: whether the next token of a chain is accepted, and the misses left with w beams. */
  chain: (request: number, round: number) => number;
  left: (width: number) => number;
}

const SIZES = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 256];
const told = (world: World): Told =>
  planner.create(
    SIZES.map((rows) => [rows, world.forward(rows)]),
    SIZES.filter((beams) => beams <= 64).map((beams) => [beams, world.step(beams)]),
  );

const memoryBound = (rows: number): number => 1 + 0.01 * (rows - 1);
const computeBound = (rows: number): number => 1 + 0.28 * (rows - 1);
/** Free up to a few rows, and then steep. */
const kneed = (rows: number): number => 1 + 0.02 * (rows - 1) + 0.1 * Math.max(0, rows - 8);
const cheapStep = (beams: number): number => 0.03 + 0.002 * beams;
const power = (width: number): number => width ** -0.3;

function groupsOf(shapes: Shape[]): { lanes: number; width: number; length: number }[] {
  const groups = new Map<string, { lanes: number; width: number; length: number }>();
  for (const { width, length, budget } of shapes) {
    if (width === 0) continue;
    const group = groups.get(`${width} ${length} ${budget}`) ?? { lanes: 0, width, length };
    group.lanes++;
    groups.set(`${width} ${length} ${budget}`, group);
  }
  return [...groups.values()];
}

function draftMs(world: World, shapes: Shape[]): number {
  let ms = 0;
  for (const { lanes, width, length } of groupsOf(shapes)) {
    for (let left = lanes; left > 0; left -= Math.floor(64 / width)) {
      const now = Math.min(left, Math.floor(64 / width));
      ms += world.step(now) + (length - 1) * world.step(now * width);
    }
  }
  return ms;
}

const rowsOf = (shapes: Shape[]): number => shapes.reduce((sum, { budget }) => sum + budget, 0);

/** Tokens by millisecond when all requests draft the same, in the mean. */
function fixedRate(world: World, requests: number, [width, length]: readonly [number, number], round = 0): number {
  const shapes = range(requests).map(() => ({ width, length, budget: 1 + width * length }));
  const tokens = range(requests).reduce((sum, request) => {
    const accepts = 1 - (1 - world.chain(request, round)) * world.left(Math.max(width, 1));
    return sum + range(length + 1).reduce((all, depth) => all + (width === 0 && depth > 0 ? 0 : accepts ** depth), 0);
  }, 0);
  return tokens / (world.forward(rowsOf(shapes)) + draftMs(world, shapes));
}

const FIXED = [0, 1, 2, 4, 8, 16].flatMap((w) =>
  w === 0 ? [[0, 0] as const] : range(6, 1).map((l) => [w, l] as const),
);
const bestFixed = (world: World, requests: number): number =>
  Math.max(
    ...FIXED.filter(([w, l]) => requests * (1 + w * l) <= 513).map((shape) => fixedRate(world, requests, shape)),
  );

interface Ran {
  rate: number;
  shapes: Shape[][];
}

/** Tokens by millisecond of rounds as planned, each outcome drawn. */
function run(world: World, requests: number, rounds: number, seed = 1, plans = told(world), noise = 0): Ran {
  const random = new Random(seed);
  const lanes = range(requests).map((id) => ({ id, mostLength: 8 }));
  let [tokens, ms] = [0, 0];
  const all: Shape[][] = [];
  for (const round of range(rounds)) {
    const shapes = plans.plan(lanes, { otherRows: 0, mostRows: 513 });
    all.push(shapes);
    shapes.forEach(({ width, length, budget }, id) => {
      tokens++;
      if (width === 0) {
        plans.learn(id);
        return;
      }
      const beams = Math.max(1, (budget - 1) / length);
      const chain = world.chain(id, round);
      let [accepted, onFirstBeam] = [0, 0];
      for (; accepted < length; accepted++) {
        const draw = random.uniform();
        if (draw < chain && onFirstBeam === accepted) onFirstBeam++;
        if (draw >= 1 - (1 - chain) * world.left(beams)) break;
      }
      tokens += accepted;
      plans.learn(id, { width: Math.round(beams), length, accepted, onFirstBeam });
    });
    const slow = (): number => 1 + noise * (random.uniform() < 0.05 ? 10 * random.uniform() : random.uniform());
    const took = { draftMs: draftMs(world, shapes), verifyMs: world.forward(rowsOf(shapes)) };
    ms += took.draftMs + took.verifyMs;
    const measured = { draftMs: took.draftMs * slow(), verifyMs: took.verifyMs * slow(), hostMs: 0 };
    plans.observe({ drafts: groupsOf(shapes), rows: rowsOf(shapes), ...measured });
  }
  return { rate: tokens / ms, shapes: all };
}

/**
 * Tokens by millisecond of batches of requests of 96 tokens that begin together, each batch of new requests, the first two
 * left out. `fixed`: the shape that all of them draft; else as planned.
 */
function serve(
  world: World,
  batch: number,
  plans?: Told,
  fixed: readonly [number, number] = [0, 0],
  seed = batch,
): number {
  const random = new Random(seed);
  let [tokens, ms, id] = [0, 0, 0];
  for (const served of range(12 + Math.round(160 / batch))) {
    const left = range(batch).map(() => 96);
    for (; Math.max(...left) > 0;) {
      const lanes = range(batch).filter((i) => at(left, i) > 0);
      const asked = lanes.map((i) => ({ id: id + i, mostLength: Math.min(8, at(left, i) - 1) }));
      const shapes =
        plans?.plan(asked, { otherRows: 0, mostRows: 513 }) ??
        asked.map(({ mostLength }) => {
          const [width, length] = [fixed[0], Math.min(fixed[1], mostLength)];
          return length === 0 ? { width: 0, length: 0, budget: 1 } : { width, length, budget: 1 + width * length };
        });
      lanes.forEach((i, lane) => {
        const { width, length, budget } = at(shapes, lane);
        const deep = Math.min(length, at(asked, lane).mostLength);
        const beams = Math.max(1, (budget - 1) / length);
        let [accepted, onFirstBeam] = [0, 0];
        for (; width > 0 && accepted < deep; accepted++) {
          const draw = random.uniform();
          if (draw < world.chain(i, 0) && onFirstBeam === accepted) onFirstBeam++;
          if (draw >= 1 - (1 - world.chain(i, 0)) * world.left(beams)) break;
        }
        left[i] = at(left, i) - 1 - accepted;
        const outcome = { width: Math.round(beams), length: deep, accepted, onFirstBeam };
        plans?.learn(id + i, ...(width > 0 ? [outcome] : []));
      });
      const took = { draftMs: draftMs(world, shapes), verifyMs: world.forward(rowsOf(shapes)) };
      if (served >= 2) ms += took.draftMs + took.verifyMs;
      const noise = (): number => 1 + (random.uniform() < 0.03 ? 1 : 0.1) * random.uniform();
      const measured = { draftMs: took.draftMs * noise(), verifyMs: took.verifyMs * noise(), hostMs: 0 };
      plans?.observe({ drafts: groupsOf(shapes), rows: rowsOf(shapes), ...measured });
    }
    id += batch;
    if (served >= 2) tokens += batch * 96;
  }
  return tokens / ms;
}

const always = (p: number) => (): number => p;

describe('the planner', () => {
  const worlds: [string, World][] = [
    ['a good drafter where rows are cheap', { forward: memoryBound, step: cheapStep, chain: always(0.8), left: power }],
    ['a good drafter where rows cost', { forward: computeBound, step: cheapStep, chain: always(0.85), left: power }],
    [
      'a poor drafter where rows are cheap',
      { forward: memoryBound, step: cheapStep, chain: always(0.35), left: power },
    ],
    ['a poor drafter where rows cost', { forward: computeBound, step: cheapStep, chain: always(0.35), left: power }],
    ['a random drafter', { forward: kneed, step: cheapStep, chain: always(0.0005), left: () => 1 }],
    [
      'a random drafter that is dear',
      { forward: memoryBound, step: always(0.3), chain: always(0.0005), left: () => 1 },
    ],
    ['a fair drafter and a knee', { forward: kneed, step: cheapStep, chain: always(0.65), left: power }],
    ['beams that are worth nothing', { forward: memoryBound, step: cheapStep, chain: always(0.7), left: () => 1 }],
    [
      'beams that are worth much',
      { forward: memoryBound, step: cheapStep, chain: always(0.5), left: (w) => w ** -0.8 },
    ],
  ];
  for (const [name, world] of worlds) {
    it.each([1, 2, 4, 8, 16])(
      `${name}, %d requests: as fast as the best shape, never slower than plain`,
      (requests) => {
        const { rate } = run(world, requests, Math.max(3000, 16000 / requests));
        // Plain decoding is preferred to what is 4 % better (of one request 1.5 %), and a hundredth goes into exploring.
        expect(rate / bestFixed(world, requests)).toBeGreaterThan(0.955);
        expect(rate / fixedRate(world, requests, [0, 0])).toBeGreaterThan(0.985);
      },
    );
  }
  // As a backend of two cores costs: rows for nothing up to 8, and then dear.
  const cpu = (rows: number): number => 1 + 0.002 * rows + 0.085 * Math.max(0, rows - 8);
  const mixed = (request: number): number => 0.68 + (0.24 * ((request * 79) % 100)) / 100;
  it.each([0.83, 0.4, 0.0005, -1].flatMap((p) => [1, 2, 4, 8, 16].map((batch) => [p, batch] as const)))(
    'new requests all the time (acceptance %d; -1: different ones), %d at once, measured roughly',
    (p, batch) => {
      const step = (beams: number): number => 0.1 + 0.0015 * beams;
      const world = { forward: cpu, step, chain: p < 0 ? mixed : always(p), left: p < 0.01 && p > 0 ? () => 1 : power };
      const best = Math.max(...FIXED.map((shape) => serve(world, batch, undefined, shape)));
      const random = new Random(7);
      const roughly = (cost: (size: number) => number) => (size: number) => cost(size) * (1 + 0.05 * random.uniform());
      const rate = serve(world, batch, told({ ...world, forward: roughly(cpu), step: roughly(step) }));
      expect(rate / best).toBeGreaterThan(0.955);
      expect(rate / serve(world, batch)).toBeGreaterThan(0.97);
    },
  );
  it('does not let some of a batch get ahead, where the others then share their passes among fewer', () => {
    // Measured: a target of 325 MB on two cores. Steady rounds in which the best requests draft are a little faster than plain ones.
    const forward = (rows: number): number => 8 + 0.05 * Math.min(rows, 8) + 0.66 * Math.max(0, rows - 8);
    const chain = (request: number): number => 0.5 + (0.49 * ((request * 79) % 100)) / 100;
    const world: World = { forward, step: (beams) => 0.26 + 0.037 * beams, chain, left: power };
    const rates = range(6).map((seed) => serve(world, 8, told(world), [0, 0], seed));
    expect(rates.reduce((sum, rate) => sum + rate) / 6 / serve(world, 8)).toBeGreaterThan(0.95);
  });
  it('lets some requests draft and others not, which is better than any one shape for all', () => {
    const chain = (request: number): number => (request % 2 === 0 ? 0.9 : 0.02);
    const world = { forward: (rows: number) => 1 + 0.15 * (rows - 1), step: cheapStep, chain, left: power };
    const { rate, shapes } = run(world, 8, 2000);
    expect(rate / bestFixed(world, 8)).toBeGreaterThan(1.05);
    const last = at(shapes, 1999).map(({ width }) => width > 0);
    expect(last).toEqual(range(8).map((request) => request % 2 === 0));
  });
  it('drafts at most two kinds of trees in a round beside plain decoding', () => {
    const chain = (request: number): number => 0.1 + 0.1 * request;
    const { shapes } = run({ forward: kneed, step: cheapStep, chain, left: power }, 9, 500);
    const kinds = shapes.map((round) => groupsOf(round).length);
    expect(Math.max(...kinds)).toBeLessThanOrEqual(3); // and one that explores
    expect(kinds.filter((count) => count > 2).length).toBeLessThan(50);
  });
  it('goes back to drafting when the text becomes predictable, and to plain decoding when it does not', () => {
    const chain = (_: number, round: number): number => (Math.floor(round / 1500) % 2 === 0 ? 0.85 : 0.02);
    const world = { forward: computeBound, step: cheapStep, chain, left: power };
    const { shapes } = run(world, 1, 6000);
    const drafts = (from: number, to: number): number =>
      shapes.slice(from, to).filter((round) => at(round, 0).width > 0).length / (to - from);
    expect(drafts(0, 1500)).toBeGreaterThan(0.9);
    expect(drafts(1700, 3000)).toBeLessThan(0.1);
    expect(drafts(3600, 4500)).toBeGreaterThan(0.9);
    expect(drafts(4700, 6000)).toBeLessThan(0.1);
  });
  it('explores for about a hundredth of the time', () => {
    const world: World = { forward: computeBound, step: cheapStep, chain: always(0.001), left: () => 1 };
    const { shapes } = run(world, 1, 5000);
    const drafted = shapes.slice(500).filter((round) => at(round, 0).width > 0);
    expect(drafted.length).toBeGreaterThan(9);
    const loss = drafted.reduce((sum, round) => sum + world.forward(rowsOf(round)) + draftMs(world, round) - 1, 0);
    expect(loss / 4500).toBeLessThan(0.012);
  });
  it('is right in the end where what was measured at first was wrong', () => {
    const world: World = { forward: computeBound, step: cheapStep, chain: always(0.6), left: power };
    const flat: World = { ...world, forward: memoryBound };
    const steep: World = { ...world, forward: (rows) => 0.4 + 0.6 * rows };
    for (const wrong of [flat, steep]) {
      const plans = told(wrong);
      run(world, 1, 4000, 1, plans);
      expect(run(world, 1, 16000, 2, plans).rate / bestFixed(world, 1)).toBeGreaterThan(0.96);
    }
  });
  it('tries again what seemed to be far too dear', () => {
    const world: World = { forward: memoryBound, step: cheapStep, chain: always(0.8), left: power };
    const plans = told({ ...world, forward: (rows) => (rows === 1 ? 1 : 3 + 0.05 * rows) });
    const { shapes } = run(world, 1, 12000, 5, plans);
    expect(at(at(shapes, 0), 0).width).toBe(0);
    expect(shapes.slice(-2000).filter((round) => at(round, 0).width > 0).length).toBeGreaterThan(1900);
  });
  it('does not mind times that are noisy, nor a machine that is half as fast for a while', () => {
    const world: World = { forward: kneed, step: cheapStep, chain: always(0.7), left: power };
    const plans = told({ ...world, forward: (rows) => 2 * kneed(rows), step: (beams) => 2 * cheapStep(beams) });
    expect(run(world, 4, 3000, 3, plans, 0.3).rate / bestFixed(world, 4)).toBeGreaterThan(0.95);
  });
  it('keeps within the rows of a pass, beside what else is in it', () => {
    const plans = told({ forward: () => 1, step: always(0.0001), chain: always(0.9), left: power });
    for (const [requests, otherRows, mostRows] of [
      [1, 0, 1],
      [3, 10, 14],
      [16, 256, 300],
      [40, 0, 513],
    ] as const) {
      for (let round = 0; round < 50; round++) {
        const lanes = range(requests).map((id) => ({ id, mostLength: 8 }));
        const shapes = plans.plan(lanes, { otherRows, mostRows });
        expect(otherRows + rowsOf(shapes)).toBeLessThanOrEqual(mostRows);
        shapes.forEach(({ width }, id) => {
          if (width === 0) plans.learn(id);
        });
      }
    }
  });
  it('drafts nothing for a request that has one token to go', () => {
    const plans = told({ forward: memoryBound, step: cheapStep, chain: always(0.9), left: power });
    const shapes = plans.plan(
      [
        { id: 0, mostLength: 0 },
        { id: 1, mostLength: 8 },
      ],
      { otherRows: 0, mostRows: 100 },
    );
    expect(shapes.map(({ width }) => width > 0)).toEqual([false, true]);
  });
  it('plans the same when it is told the same', () => {
    const world: World = { forward: kneed, step: cheapStep, chain: (i) => 0.2 + 0.1 * i, left: power };
    expect(run(world, 5, 300, 4, undefined, 0.5)).toEqual(run(world, 5, 300, 4, undefined, 0.5));
    expect(run(world, 5, 300, 4, undefined, 0.5)).not.toEqual(run(world, 5, 300, 5, undefined, 0.5));
  });
});

describe('costs', () => {
  const group = { lanes: 1, width: 1, length: 1 };
  const curve = (points: number[][]): ((rows: number) => number) => {
    const plans = planner.create(points, [[1, 1]]);
    return (rows) => plans.costs(group, rows).forwardMs;
  };
  it('are linear between what was measured, and go on behind it', () => {
    const forward = curve([
      [1, 1],
      [5, 3],
      [9, 11],
    ]);
    expect([1, 3, 5, 6, 9, 11].map(forward)).toEqual([1, 2, 3, 5, 11, 15]);
    expect(curve([[1, 2]])(100)).toBe(2);
  });
  it('never fall with more rows, whatever was measured', () => {
    const forward = curve([
      [1, 3],
      [2, 1],
      [3, 2],
      [4, 9],
      [8, 7],
    ]);
    expect([1, 2, 3, 4, 8, 100].map(forward)).toEqual([2, 2, 2, 8, 8, 8]);
  });
  it('of drafts count steps by the beams of all lanes, 64 at a time', () => {
    const plans = planner.create([[1, 1]], SIZES.map((beams) => [beams, beams])); // prettier-ignore
    expect(plans.costs({ lanes: 1, width: 4, length: 3 }, 1).draftMs).toBeCloseTo(1 + 4 + 4);
    expect(plans.costs({ lanes: 3, width: 4, length: 3 }, 1).draftMs).toBeCloseTo(3 + 12 + 12);
    expect(plans.costs({ lanes: 20, width: 4, length: 2 }, 1).draftMs).toBeCloseTo(16 + 64 + 4 + 16);
  });
  it('follow a machine that becomes slower, for all sizes at once', () => {
    const plans = planner.create([[1, 1], [8, 2]], [[1, 0.1]]); // prettier-ignore
    for (let i = 0; i < 60; i++) plans.observe({ drafts: [], rows: 1, draftMs: 0, verifyMs: 3, hostMs: 0 });
    expect(plans.costs(group, 1).forwardMs).toBeCloseTo(3, 1);
    expect(plans.costs(group, 8).forwardMs / 6).toBeGreaterThan(0.85);
    expect(plans.costs(group, 1).draftMs / 0.3).toBeGreaterThan(0.85);
  });
});
