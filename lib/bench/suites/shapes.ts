/** What a round costs by its shape, and the speedup over beam width and length with its optimum. */
import { type Bar, equal } from '../bars.js';
import type { Named, Shape } from '../options.js';
import { total } from '../measure.js';
import { median } from '../statistics.js';
import { type Bench, differing, figuresOf, fixedWay, type Measured, plainWay, promptsFor, type Speed, speedOf, takeTurns } from '../ways.js'; // prettier-ignore

export interface ShapeCell extends Shape, Speed {
  /** Rows of the target's pass in a drafted round, the root included: fewer than beams x tokens where beams share beginnings. */
  rows: number;
  /** Of a round, in milliseconds. 0 for drafting on CUDA, where a round is one piece. */
  draftMs: number;
  verifyMs: number;
  hostMs: number;
}

export interface VerifyCost {
  rows: number;
  /** Milliseconds of the target's pass, and as a multiple of a plain step's. */
  ms: number;
  ofPlain: number;
}

export interface DraftCost {
  beamWidth: number;
  /** Milliseconds of one step of the drafter, and as a part of a plain step of the target. */
  ms: number;
  ofPlain: number;
}

export interface DrafterShapes {
  drafter: string;
  plain: { tokensPerSecond: number; verifyMs: number };
  cells: ShapeCell[];
  /** The cell of the largest median speedup. Null where plain decoding was faster than all of them. */
  optimum: Shape | null;
  verifyCosts: VerifyCost[];
  draftCosts: DraftCost[];
}

export interface ShapesSuite {
  drafters: DrafterShapes[];
  compared: number;
  differing: number;
}

function gridOf(widths: readonly number[], lengths: readonly number[]): Shape[] {
  return widths.flatMap((beamWidth) => lengths.map((beamLength) => ({ beamWidth, beamLength })));
}
const GRID = gridOf([1, 2, 3, 4, 6, 8], [1, 2, 3, 4, 5, 6]);
const QUICK_GRID = gridOf([1, 2], [1, 4]);

interface Group {
  plain: Measured;
  fixed: Measured[];
}

/** Shapes of one width take turns with plain decoding, so that what is compared lies close together in time. */
async function measureGroups(bench: Bench, drafter: Named, shapes: readonly Shape[]): Promise<Group[]> {
  const groups: Group[] = [];
  const temperature = bench.settings.temperature ?? 0;
  for (const width of new Set(shapes.map(({ beamWidth }) => beamWidth))) {
    const own = shapes.filter(({ beamWidth }) => beamWidth === width);
    const ways = [plainWay(temperature), ...own.map((shape) => fixedWay(drafter, shape, temperature))];
    const [plain, ...fixed] = await takeTurns(bench, ways, promptsFor(bench));
    if (plain !== undefined) groups.push({ plain, fixed });
  }
  return groups;
}

function cellOf(one: Measured, plain: Measured): ShapeCell {
  const sum = total(one.trials.map((trial) => figuresOf(trial)));
  const { beamWidth = 0, beamLength = 0 } = one.way.drafting;
  return {
    beamWidth,
    beamLength,
    ...speedOf(one, plain),
    rows: 1 + sum.draftedNodes / sum.draftedRounds,
    draftMs: sum.draftMs / sum.rounds,
    verifyMs: sum.verifyMs / sum.rounds,
    hostMs: sum.hostMs / sum.rounds,
  };
}

/** Milliseconds of the target's pass in plain decoding. */
export function plainStepMs(plain: readonly Measured[]): number {
  return median(
    plain.flatMap(({ trials }) =>
      trials.map((trial) => {
        const { verifyMs, rounds } = figuresOf(trial);
        return verifyMs / rounds;
      }),
    ),
  );
}

function summarize(drafter: string, groups: readonly Group[]): DrafterShapes {
  const cells = groups.flatMap(({ plain, fixed }) => fixed.map((one) => cellOf(one, plain)));
  const step = plainStepMs(groups.map(({ plain }) => plain));
  const best = cells.reduce<ShapeCell | null>(
    (found, cell) => (cell.speedup.median > (found?.speedup.median ?? 1) ? cell : found),
    null,
  );
  const verifyCosts = cells.map(({ rows, verifyMs }) => ({ rows, ms: verifyMs, ofPlain: verifyMs / step }));
  const widths = [...new Set(cells.map(({ beamWidth }) => beamWidth))];
  return {
    drafter,
    plain: {
      tokensPerSecond: median(groups.map(({ plain }) => speedOf(plain, plain).tokensPerSecond.median)),
      verifyMs: step,
    },
    cells,
    optimum: best === null ? null : { beamWidth: best.beamWidth, beamLength: best.beamLength },
    verifyCosts: verifyCosts.sort((a, b) => a.rows - b.rows),
    draftCosts: widths.map((beamWidth) => {
      const ms = median(
        cells.filter((cell) => cell.beamWidth === beamWidth).map((cell) => cell.draftMs / cell.beamLength),
      );
      return { beamWidth, ms, ofPlain: ms / step };
    }),
  };
}

export async function runShapes(bench: Bench): Promise<{ suite: ShapesSuite; bars: Bar[] }> {
  const { settings, drafters, progress } = bench;
  const shapes = settings.beamShapes ?? (settings.quick ? QUICK_GRID : GRID);
  const groups = new Set(shapes.map(({ beamWidth }) => beamWidth)).size;
  progress.start('shapes', drafters.length * (shapes.length + groups) * settings.turns);
  const suite: ShapesSuite = { drafters: [], compared: 0, differing: 0 };
  for (const drafter of drafters) {
    const measured = await measureGroups(bench, drafter, shapes);
    suite.drafters.push(summarize(drafter.name, measured));
    for (const { plain, fixed } of measured) {
      const { compared, differing: wrong } = differing(fixed, plain);
      suite.compared += compared;
      suite.differing += wrong;
    }
  }
  return { suite, bars: [equal('continuations of any shape whose ids differ', suite.differing, 0)] };
}
