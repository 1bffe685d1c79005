/**
 * How far drafting gets by what it costs and how much is accepted, beside the model of "Decoding Speculative Decoding" (Yan et
 * al., 2024): speedup = tokens per step / (1 + draft cost / target cost), which takes a pass over all drafted rows to cost
 * what a plain step does. Acceptance is varied by drafters, shapes and temperatures, as it comes.
 */
import { type Bar, equal } from '../bars.js';
import { total } from '../measure.js';
import type { Shape } from '../options.js';
import { type Bench, differing, figuresOf, fixedWay, type Measured, plainWay, promptsFor, type Speed, speedOf, takeTurns } from '../ways.js'; // prettier-ignore
import { plainStepMs } from './shapes.js';

export interface StudyPoint extends Shape, Speed {
  drafter: string;
  temperature: number;
  /** Milliseconds of drafting in a round, over those of a plain step of the target. */
  draftCost: number;
  /** Milliseconds of verifying in a round, over those of a plain step. The model of the paper has 1. */
  verifyCost: number;
  /** The speedup that the paper's model gives. */
  predicted: number;
  /** The same with the verify cost that was measured in the place of 1. */
  predictedWithVerify: number;
}

export interface StudySuite {
  points: StudyPoint[];
  compared: number;
  differing: number;
}

const SHAPES: readonly Shape[] = [
  { beamWidth: 1, beamLength: 1 },
  { beamWidth: 1, beamLength: 2 },
  { beamWidth: 1, beamLength: 4 },
  { beamWidth: 1, beamLength: 6 },
  { beamWidth: 2, beamLength: 4 },
  { beamWidth: 4, beamLength: 4 },
];
const TEMPERATURES = [0, 0.7, 1];

function pointOf(one: Measured, plain: Measured, step: number): StudyPoint {
  const { drafter, drafting, temperature } = one.way;
  const { beamWidth = 0, beamLength = 0 } = drafting;
  const sum = total(one.trials.map((trial) => figuresOf(trial)));
  const speed = speedOf(one, plain);
  const draftCost = sum.draftMs / sum.rounds / step;
  const verifyCost = sum.verifyMs / sum.rounds / step;
  return {
    ...{ drafter: drafter?.name ?? '', temperature, beamWidth, beamLength, ...speed, draftCost, verifyCost },
    predicted: speed.tokensPerStep / (1 + draftCost),
    predictedWithVerify: speed.tokensPerStep / (verifyCost + draftCost),
  };
}

export async function runStudy(bench: Bench): Promise<{ suite: StudySuite; bars: Bar[] }> {
  const { settings, drafters, progress } = bench;
  const shapes = settings.beamShapes ?? (settings.quick ? SHAPES.slice(1, 3) : SHAPES);
  const temperatures = settings.temperature === undefined ? TEMPERATURES : [settings.temperature];
  const prompts = promptsFor(bench);
  progress.start('study', temperatures.length * (1 + drafters.length * shapes.length) * settings.turns);
  const suite: StudySuite = { points: [], compared: 0, differing: 0 };
  for (const temperature of temperatures) {
    const ways = drafters.flatMap((drafter) => shapes.map((shape) => fixedWay(drafter, shape, temperature)));
    const [plain, ...fixed] = await takeTurns(bench, [plainWay(temperature), ...ways], prompts);
    if (plain === undefined) continue;
    const step = plainStepMs([plain]);
    suite.points.push(...fixed.map((one) => pointOf(one, plain, step)));
    const { compared, differing: wrong } = differing(fixed, plain);
    suite.compared += compared;
    suite.differing += wrong;
  }
  return { suite, bars: [equal('continuations at any temperature whose ids differ', suite.differing, 0)] };
}
