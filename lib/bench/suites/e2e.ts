/** Plain decoding, drafting in fixed shapes, and drafting whose shapes are chosen, end to end, by set of prompts. */
import { atLeast, type Bar, equal } from '../bars.js';
import type { Named, Shape } from '../options.js';
import { setsOf } from '../prompts.js';
import { median } from '../statistics.js';
import { adaptiveWay, type Bench, differing, figuresOf, fixedWay, type Measured, plainWay, promptsFor, rateOf, type Speed, speedOf, takeTurns } from '../ways.js'; // prettier-ignore

export interface E2eRow extends Speed {
  /** `all`, or a set of prompts. */
  set: string;
  /** Null for plain decoding. */
  drafter: string | null;
  /** `plain`, `adaptive`, or a shape: beams x tokens. */
  way: string;
}

export interface E2eSuite {
  rows: E2eRow[];
  /** Continuations that were compared with those of plain decoding, and how many had other ids. */
  compared: number;
  differing: number;
}

const SHAPES: readonly Shape[] = [
  { beamWidth: 1, beamLength: 2 },
  { beamWidth: 1, beamLength: 4 },
  { beamWidth: 4, beamLength: 4 },
];
/** The least that chosen shapes must give of plain decoding, and of the best fixed shape. */
const LEAST = 0.98;

function barsOf(drafter: Named, adaptive: Measured, fixed: readonly Measured[], plain: Measured): Bar[] {
  const beside = (other: Measured): number =>
    median(
      adaptive.trials.map((trial, turn) => {
        const its = other.trials[turn];
        return its === undefined ? NaN : rateOf(figuresOf(trial)) / rateOf(figuresOf(its));
      }),
    );
  const rounded = (value: number): number => Math.round(value * 1000) / 1000;
  return [
    atLeast(`${drafter.name}: adaptive over plain decoding`, rounded(beside(plain)), LEAST),
    atLeast(
      `${drafter.name}: adaptive over the best fixed shape`,
      rounded(Math.min(...fixed.map((one) => beside(one)))),
      LEAST,
    ),
  ];
}

export async function runE2e(bench: Bench): Promise<{ suite: E2eSuite; bars: Bar[] }> {
  const { settings, drafters, progress } = bench;
  const prompts = promptsFor(bench);
  const temperature = settings.temperature ?? 0;
  const shapes = settings.beamShapes ?? (settings.quick ? SHAPES.slice(1) : SHAPES);
  const ways = [
    plainWay(temperature),
    ...drafters.flatMap((drafter) => [
      ...shapes.map((shape) => fixedWay(drafter, shape, temperature)),
      adaptiveWay(drafter, temperature),
    ]),
  ];
  progress.start('e2e', ways.length * settings.turns);
  const all = await takeTurns(bench, ways, prompts);
  const plain = all[0] as Measured;
  const sets = setsOf(prompts);
  const rows = [undefined, ...(sets.length > 1 ? sets : [])].flatMap((set) =>
    all.map((one) => ({
      set: set ?? 'all',
      drafter: one.way.drafter?.name ?? null,
      way: one.way.name,
      ...speedOf(one, plain, set),
    })),
  );
  const suite = { rows, ...differing(all, plain) };
  // A quick run says nothing about speed, so it has no bars of it.
  const judged = settings.quick ? [] : drafters;
  const bars = judged.flatMap((drafter) => {
    const own = all.filter(({ way }) => way.drafter === drafter);
    const adaptive = own.at(-1);
    return adaptive === undefined ? [] : barsOf(drafter, adaptive, own.slice(0, -1), plain);
  });
  return { suite, bars: [equal('continuations whose ids differ from plain decoding', suite.differing, 0), ...bars] };
}
