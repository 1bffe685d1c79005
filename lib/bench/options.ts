/** The options of a benchmark, checked before anything is measured. */
import { existsSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';

import { invalid } from '../errors.js';
import { OptionReader } from '../option-reader.js';
import type { MemoryOptions } from '../option-types.js';
import { packageRoot } from '../package-root.js';
import { MOST_WIDENING } from '../widen/widen.js';
import { bundledPrompts, type Prompt, readPrompts } from './prompts.js';
import { type SuiteName, SUITES } from './report.js';

export interface Shape {
  beamWidth: number;
  beamLength: number;
}

/** A directory, and what reports call it. */
export interface Named {
  name: string;
  path: string;
}

/** What callers may give; all of it has a default. */
export interface BenchOptions {
  /** Default: e2e. */
  suites?: readonly SuiteName[];
  /** Model directory. Default: the bundled model. */
  model?: string;
  /** Drafter directories. Default: those of the bundled model; none for another one. */
  drafters?: readonly string[];
  /** Files of prompts. Default: prompts.json of the model, else those of the bundled one. */
  prompts?: readonly string[];
  device?: MemoryOptions['device'];
  dtype?: MemoryOptions['dtype'];
  drafterDtype?: MemoryOptions['drafterDtype'];
  /** Default: chosen by the engine. */
  threads?: number;
  /** Fixed shapes. Default: by suite. */
  beamShapes?: readonly Shape[];
  /** How many times each unit of the model is to be there. Default: the model as it is. */
  widen?: number;
  /** Few prompts, tokens, shapes and turns: whether it works, not how fast. Default: false. */
  quick?: boolean;
  /** Tokens that each prompt is continued by, 2 to 100,000. Default: 128; quick 24. */
  tokens?: number;
  /** Trials of each way, 1 to 1000. Default: 5; quick 1. */
  turns?: number;
  /** Prompts of each set, 1 to 100,000. Default: 8; quick 2. */
  promptCount?: number;
  /** 0 to 100. Default: 0; the study takes 0, 0.7 and 1. */
  temperature?: number;
}

export interface Settings {
  suites: SuiteName[];
  model: Named;
  isBundled: boolean;
  drafters: Named[];
  prompts: Prompt[];
  /** Where they are from, when that was said. */
  promptFiles: readonly string[] | undefined;
  load: Pick<MemoryOptions, 'device' | 'dtype' | 'drafterDtype' | 'threads'>;
  beamShapes: Shape[] | undefined;
  widen: number | undefined;
  quick: boolean;
  tokens: number;
  turns: number;
  promptCount: number;
  temperature: number | undefined;
}

const BUNDLED = join(packageRoot, 'models/ts-declarations');
const KEYS: readonly (keyof BenchOptions)[] = [
  ...([
    'suites',
    'model',
    'drafters',
    'prompts',
    'device',
    'dtype',
    'drafterDtype',
    'threads',
    'beamShapes',
    'widen',
    'quick',
  ] as const),
  ...(['tokens', 'turns', 'promptCount', 'temperature'] as const),
];
/** Suites that compare ways of drafting. */
const DRAFTING: readonly SuiteName[] = ['e2e', 'shapes', 'study'];

const named = (path: string): Named => ({ name: basename(resolve(path)), path: resolve(path) });

function checkDirectory(what: string, path: string): Named {
  if (!existsSync(join(path, 'config.json'))) throw invalid(`${what} ${JSON.stringify(path)} is no directory with a config.json`); // prettier-ignore
  return named(path);
}

function checkShapes(shapes: readonly Shape[] | undefined): Shape[] | undefined {
  if (shapes === undefined) return undefined;
  if (shapes.length === 0) throw invalid('beamShapes must not be empty');
  for (const { beamWidth: width, beamLength: length } of shapes) {
    const fits = Number.isInteger(width) && Number.isInteger(length) && width >= 1 && width <= 64 && length >= 1 && length <= 8; // prettier-ignore
    if (!fits) throw invalid(`a beam shape must be of 1 to 64 beams and 1 to 8 tokens, got ${width}x${length}`);
  }
  return [...new Map(shapes.map((shape) => [`${shape.beamWidth}x${shape.beamLength}`, shape])).values()];
}

function promptsOf(files: readonly string[] | undefined, model: Named, isBundled: boolean): Prompt[] {
  if (files !== undefined) return readPrompts(files);
  const own = join(model.path, 'prompts.json');
  return !isBundled && existsSync(own) ? readPrompts([own]) : bundledPrompts(join(BUNDLED, 'prompts.json'));
}

/** Throws ERR_INVALID_ARGUMENT, and ERR_FILE for prompts that cannot be read. */
export function checkOptions(options: BenchOptions): Settings {
  const reader = new OptionReader(options, KEYS);
  const suites = options.suites ?? ['e2e'];
  const unknown = suites.find((suite) => !SUITES.includes(suite));
  if (unknown !== undefined || suites.length === 0) {
    throw invalid(`a suite must be one of ${SUITES.join(', ')}, got ${JSON.stringify(unknown ?? '')}`);
  }
  const quick = reader.boolean('quick', false);
  const isBundled = options.model === undefined || resolve(options.model) === BUNDLED;
  const model = checkDirectory('the model', options.model ?? BUNDLED);
  const found = options.drafters ?? (isBundled ? ['gru', 'elman'].map((cell) => join(BUNDLED, `drafter-${cell}`)) : []);
  const drafters = found.map((path) => checkDirectory('the drafter', path));
  const wants = suites.find((suite) => DRAFTING.includes(suite));
  if (drafters.length === 0 && wants !== undefined) {
    throw invalid(`the suite ${wants} compares drafters: give at least one with --drafter`);
  }
  const threads = reader.integer('threads', 0, 1, 1024);
  const load = {
    ...(options.device === undefined ? {} : { device: options.device }),
    ...(options.dtype === undefined ? {} : { dtype: options.dtype }),
    ...(options.drafterDtype === undefined ? {} : { drafterDtype: options.drafterDtype }),
    ...(threads === 0 ? {} : { threads }),
  };
  const widen = reader.integer('widen', 0, 1, MOST_WIDENING);
  return {
    suites: SUITES.filter((suite) => suites.includes(suite)),
    model,
    isBundled,
    drafters,
    prompts: promptsOf(options.prompts, model, isBundled),
    promptFiles: options.prompts,
    load,
    beamShapes: checkShapes(options.beamShapes),
    widen: widen === 0 ? undefined : widen,
    quick,
    tokens: reader.integer('tokens', quick ? 24 : 128, 2, 100_000),
    turns: reader.integer('turns', quick ? 1 : 5, 1, 1000),
    promptCount: reader.integer('promptCount', quick ? 2 : 8, 1, 100_000),
    temperature: reader.has('temperature')
      ? reader.number('temperature', 0, 'from 0 to 100', (value) => value >= 0 && value <= 100)
      : undefined,
  };
}
