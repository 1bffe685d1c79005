/** Ways to decode that are compared: in turns, each trial in a process of its own. */
import type { Named, Settings, Shape } from './options.js';
import { runTrial } from './children.js';
import { type Drafting, total, type SetFigures, type TrialResult } from './measure.js';
import type { Progress } from './progress.js';
import { choosePrompts, type Prompt } from './prompts.js';
import { type Spread, spreadOf } from './statistics.js';

export interface Way {
  name: string;
  drafter: Named | null;
  drafting: Drafting;
  temperature: number;
}

/** What a suite works with. */
export interface Bench {
  settings: Settings;
  /** The model and the drafters that are measured: as given, or widened. */
  model: Named;
  drafters: readonly Named[];
  progress: Progress;
  signal: AbortSignal;
  /** Of the first trial there was: who ran, and what was loaded. */
  first?: TrialResult;
}

/** A way with its trials, one for each turn. */
export interface Measured {
  way: Way;
  trials: TrialResult[];
}

export const shapeName = ({ beamWidth, beamLength }: Shape): string => `${beamWidth}x${beamLength}`;

export function plainWay(temperature: number): Way {
  return { name: 'plain', drafter: null, drafting: { drafting: false }, temperature };
}

export function fixedWay(drafter: Named, shape: Shape, temperature: number): Way {
  return { name: shapeName(shape), drafter, drafting: { ...shape }, temperature };
}

export function adaptiveWay(drafter: Named, temperature: number): Way {
  return { name: 'adaptive', drafter, drafting: {}, temperature };
}

export function promptsFor({ settings }: Bench): Prompt[] {
  return choosePrompts(settings.prompts, settings.promptCount);
}

export async function trialOf(bench: Bench, way: Way, prompts: Prompt[], model = bench.model): Promise<TrialResult> {
  const { settings, signal } = bench;
  const { drafter, drafting, temperature } = way;
  const spec = {
    model: model.path,
    drafter: drafter?.path ?? (false as const),
    load: settings.load,
    drafting,
    prompts,
  };
  const result = await runTrial({ ...spec, tokens: settings.tokens, temperature }, signal);
  bench.first ??= result;
  return result;
}

/** Every way once in each turn. A turn begins elsewhere than the one before, so that nobody always follows the same one. */
export async function takeTurns(bench: Bench, ways: readonly Way[], prompts: Prompt[]): Promise<Measured[]> {
  const all = ways.map((way): Measured => ({ way, trials: [] }));
  for (let turn = 0; turn < bench.settings.turns; turn++) {
    for (let i = 0; i < all.length; i++) {
      const one = all[(i + turn) % all.length];
      if (one === undefined) continue;
      bench.progress.begin(one.way.drafter === null ? one.way.name : `${one.way.drafter.name} ${one.way.name}`);
      one.trials.push(await trialOf(bench, one.way, prompts));
    }
  }
  return all;
}

/** Of one set, or of all. */
export function figuresOf({ sets }: TrialResult, set?: string): SetFigures {
  return total(set === undefined ? sets : sets.filter((one) => one.set === set));
}

export const rateOf = ({ tokens, decodeMs }: SetFigures): number => (1000 * tokens) / decodeMs;

/** How fast a way is: alone, and beside plain decoding in the same turns. */
export interface Speed {
  tokensPerSecond: Spread;
  /** Tokens of a round, the bonus token included. */
  tokensPerStep: number;
  /** Over plain decoding, by turns. */
  speedup: Spread;
  /** The median speedup over the tokens per step: 1 where a round costs no more than a plain step. */
  eta: number;
}

export function speedOf({ trials }: Measured, plain: Measured, set?: string): Speed {
  const rates = trials.map((trial) => rateOf(figuresOf(trial, set)));
  const of = plain.trials.map((trial) => rateOf(figuresOf(trial, set)));
  const { tokens, rounds } = total(trials.map((trial) => figuresOf(trial, set)));
  const speedup = spreadOf(rates.map((rate, turn) => rate / (of[turn] ?? NaN)));
  const tokensPerStep = tokens / rounds;
  return { tokensPerSecond: spreadOf(rates), tokensPerStep, speedup, eta: speedup.median / tokensPerStep };
}

/** Prompts that any trial continued by other ids than the first trial of `plain` did. */
export function differing(all: readonly Measured[], plain: Measured): { compared: number; differing: number } {
  const expected = plain.trials[0]?.ids ?? [];
  const ids = all.flatMap(({ trials }) => trials.flatMap((trial) => expected.map((id, i) => trial.ids[i] === id)));
  return { compared: ids.length, differing: ids.filter((same) => !same).length };
}
