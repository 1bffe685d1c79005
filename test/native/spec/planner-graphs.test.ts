/**
 * The planner where a round is one of few graphs, as on CUDA: it hears what rounds took as a whole, a kind of round that
 * comes for the first or second time takes longer, and groups are filled up to buckets. In worlds where it is known what
 * rounds take.
 */
import { describe, expect, it } from 'vitest';

import { at, range } from '../../kit/arrays.js';
import { planner, type Shape, type Told } from '../../kit/planner.js';
import { Random } from '../../kit/random.js';

/** Milliseconds of graphs; `launching`: of a pass and a draft step at least, where they are launched op by op. */
interface World {
  forward: (rows: number) => number;
  step: (beams: number) => number;
  launching: { forward: number; step: number };
  /** What making a graph takes more than launching it. */
  recording: number;
}

/** Weights of 16 GB: 64 rows for an eighth more. */
const LARGE: World = {
  forward: (rows) => 5.5 * (1 + (0.12 * Math.min(rows - 1, 63)) / 63) + 0.03 * Math.max(0, rows - 64),
  step: (beams) => 0.1 + 0.0015 * beams,
  launching: { forward: 1, step: 0.04 },
  recording: 2.5,
};
/** So small that launching it op by op takes longer than all the work. */
const SMALL: World = {
  forward: (rows) => 0.12 + 0.0006 * rows,
  step: (beams) => 0.02 + 0.0002 * beams,
  launching: { forward: 0.3, step: 0.035 },
  recording: 0.7,
};

const ROWS = [1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 128];
const BEAMS = [1, 2, 4, 8, 16, 32, 64];
const TOKENS = 200;
const [KEPT, REMEMBERED] = [64, 256];

/** As native/spec/round.cc fills groups up. */
function bucket(lanes: number): number {
  const power = 2 ** Math.floor(Math.log2(lanes));
  if (lanes === power) return lanes;
  return 2 * lanes <= 3 * power ? 1.5 * power : 2 * power;
}

/** As native/spec/round_graphs.h: the last used first. */
class Graphs {
  private readonly shapes: { shape: string; made: boolean }[] = [];
  launched = 0;
  /** Of a round of this shape, whose graph takes `ms`. */
  run(shape: string, ms: number, opByOp: number, recording: number): number {
    const index = this.shapes.findIndex((each) => each.shape === shape);
    const [found] = index < 0 ? [] : this.shapes.splice(index, 1);
    this.shapes.unshift(found ?? { shape, made: false });
    this.shapes.splice(REMEMBERED);
    if (found === undefined) return Math.max(ms, opByOp);
    if (found.made) {
      this.launched++;
      return ms;
    }
    found.made = true;
    const made = this.shapes.filter((each) => each.made);
    if (made.length > KEPT) at(made, KEPT).made = false;
    return ms + recording;
  }
}

interface Group extends Shape {
  lanes: number;
}

function groupsOf(shapes: Shape[]): Group[] {
  const groups = new Map<string, Group>();
  for (const shape of shapes) {
    const key = `${shape.width}x${shape.length}/${shape.budget}`;
    const group = groups.get(key) ?? { ...shape, lanes: 0 };
    group.lanes++;
    groups.set(key, group);
  }
  return [...groups.values()].map((group) => ({ ...group, lanes: bucket(group.lanes) }));
}

const stepsMs = (world: World, { lanes, width, length }: Group): number => {
  let ms = 0;
  for (let left = width === 0 ? 0 : lanes; left > 0; left -= Math.floor(64 / width)) {
    const now = Math.min(left, Math.floor(64 / width));
    ms += world.step(now) + (length - 1) * world.step(now * width);
  }
  return ms;
};

/** Planners, by what was measured at load: graphs, or the same launched op by op. */
function told({ forward, step, launching }: World, opByOp = false): Told {
  const random = new Random(3);
  const least = (ms: number, launch: number): number => (opByOp ? Math.max(ms, launch) : ms) * (1 + 0.05 * random.uniform()); // prettier-ignore
  return planner.create(
    ROWS.map((rows) => [rows, least(forward(rows), launching.forward)]),
    BEAMS.map((beams) => [beams, least(step(beams), launching.step) + 0.0075]), // and half a launch and a wait
  );
}

interface Served {
  /** Tokens by millisecond. */
  rate: number;
  /** Share of rounds that were graphs already. */
  graphs: number;
}

/** So many requests at a time, a new one for each that ends; drafts of shape `fixed` for all, or as planned. */
function serve(world: World, batch: number, plans: Told | readonly [number, number], seed: number): Served {
  const random = new Random(seed);
  const graphs = new Graphs();
  let [tokens, ms, rounds, id] = [0, 0, 0, 0];
  const chainOf = (request: number): number => 0.5 + (0.4 * ((request * 79) % 100)) / 100;
  const begin = (left: number): { id: number; left: number; text: number } => ({
    ...{ id: id++, left, text: 30 + random.integer(0, 100) },
  });
  const lanes = range(batch).map(() => begin(1 + random.integer(0, TOKENS)));
  for (const last = batch + Math.max(24, 6 * batch); id < last; rounds++) {
    const asked = lanes.map((lane) => ({ id: lane.id, mostLength: Math.min(8, lane.left - 1) }));
    const shapes =
      ('plan' in plans ? plans.plan(asked, { otherRows: 0, mostRows: 513 }) : undefined)?.map((shape, i) => ({
        ...shape,
        length: Math.min(shape.length, at(asked, i).mostLength),
      })) ??
      asked.map(({ mostLength }) => {
        const [width, most] = plans as readonly [number, number];
        return { width, length: Math.min(most, mostLength), budget: 513 };
      });
    const drafted = shapes.map(({ width, length, budget }) =>
      width * length === 0
        ? { width: 0, length: 0, budget: 1 }
        : { width, length, budget: Math.min(budget, 1 + width * length) },
    );
    const groups = groupsOf(drafted);
    const rows = groups.reduce((sum, { lanes: count, budget }) => sum + count * budget, 0);
    const steps = groups.filter(({ width }) => width > 0);
    const draftSteps = steps.reduce((sum, { length }) => sum + length, 0);
    const bound = 2 ** Math.ceil(Math.log2(Math.max(256, ...lanes.map(({ text }) => text + 9))));
    const key = JSON.stringify([bound, groups.map((group) => JSON.stringify(group)).sort()]);
    const graph = world.forward(rows) + steps.reduce((sum, group) => sum + stepsMs(world, group), 0);
    const opByOp = world.launching.forward + draftSteps * world.launching.step;
    const noise = 1 + (random.uniform() < 0.03 ? 0.5 : 0.02) * random.uniform();
    const took = noise * graphs.run(key, graph, opByOp, world.recording);
    ms += took;
    if ('plan' in plans) plans.observe({ drafts: steps, rows, draftMs: -1, verifyMs: took, hostMs: 0.03 });
    lanes.forEach((lane, i) => {
      const { width, length, budget } = at(drafted, i);
      const beams = Math.max(1, (budget - 1) / Math.max(1, length));
      const chain = chainOf(lane.id);
      let [accepted, onFirstBeam] = [0, 0];
      for (; width > 0 && accepted < length; accepted++) {
        const draw = random.uniform();
        if (draw < chain && onFirstBeam === accepted) onFirstBeam++;
        if (draw >= 1 - (1 - chain) * beams ** -0.3) break;
      }
      const outcome = { width: Math.min(width, Math.round(beams)), length, accepted, onFirstBeam };
      if ('plan' in plans) plans.learn(lane.id, ...(width > 0 ? [outcome] : []));
      tokens += 1 + accepted;
      lane.left -= 1 + accepted;
      lane.text += 1 + accepted;
      if (lane.left <= 0) Object.assign(lane, begin(TOKENS));
    });
  }
  return { rate: tokens / ms, graphs: graphs.launched / rounds };
}

const FIXED = [[0, 0], [1, 1], [1, 2], [1, 3], [1, 4], [1, 6], [2, 3], [2, 6], [4, 4], [8, 4], [8, 6]] as const; // prettier-ignore
const SEEDS = [5, 42, 79, 116];
const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

describe('the planner, where rounds are graphs', () => {
  const cases = ([['large', LARGE, 0.92], ['small', SMALL, 0.82]] as const) // prettier-ignore
    .flatMap(([name, world, least]) => [1, 4, 16, 32].map((batch) => [name, batch, world, least] as const));
  it.each(cases)('a %s model, %d requests at once: near the best shape, mostly graphs', (_, batch, world, least) => {
    const best = Math.max(...FIXED.map((shape) => mean(SEEDS.map((seed) => serve(world, batch, shape, seed).rate))));
    const plain = mean(SEEDS.map((seed) => serve(world, batch, [0, 0], seed).rate));
    const planned = SEEDS.map((seed) => serve(world, batch, told(world), seed));
    const rate = mean(planned.map((each) => each.rate));
    expect(rate / best).toBeGreaterThan(least);
    expect(rate / plain).toBeGreaterThan(1.05);
    expect(mean(planned.map((each) => each.graphs))).toBeGreaterThan(0.8);
  });
  it('control: costs measured op by op, which are those of launching, would make it verify far too much', () => {
    const rateOf = (opByOp: boolean): number =>
      mean(SEEDS.map((seed) => serve(SMALL, 16, told(SMALL, opByOp), seed).rate));
    expect(rateOf(true) / rateOf(false)).toBeLessThan(0.85);
  });
});
