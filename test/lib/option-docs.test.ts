/** Every option of the API: its docstring states unit, range and default, and what is checked is what it states. */
import { readFileSync } from 'node:fs';

import ts from 'typescript';
import { describe, expect, it } from 'vitest';

import { RedrafterError } from '../../lib/index.js';
import {
  resolveAppend,
  resolveEngine,
  resolveGenerate,
  resolveGenerateMany,
  resolveLoad,
  resolveSave,
  resolveSession,
} from '../../lib/options.js';

interface Option {
  name: string;
  type: string;
  doc: string;
}

/** The options of an interface of option-types.ts, own and inherited. */
function optionsOf(file: ts.SourceFile, name: string): Option[] {
  const found = file.statements.filter(ts.isInterfaceDeclaration).find((each) => each.name.text === name);
  if (found === undefined) throw new Error(`option-types.ts has no ${name}`);
  const bases = (found.heritageClauses ?? []).flatMap((clause) => clause.types.map((type) => type.getText(file)));
  const own = found.members.filter(ts.isPropertySignature).map((member) => ({
    name: member.name.getText(file),
    type: member.type?.getText(file) ?? '',
    doc: ts.getJSDocCommentsAndTags(member).map((comment) => comment.getText(file)).join(' ').replaceAll(/\s*\n\s*\*?\s*/g, ' '), // prettier-ignore
  }));
  return [...bases.flatMap((base) => optionsOf(file, base)), ...own];
}

/** One spelling of a bound: `2^31-1`, `1024`. */
function bound(text: string): number {
  const power = /^2\^(\d+)(-1)?$/.exec(text);
  return power === null ? Number(text) : 2 ** Number(power[1]) - (power[2] === undefined ? 0 : 1);
}

/** The range that a docstring states. `contextTokens` names a bound that only the model knows. */
function rangeOf(doc: string): { low: number; high: number; fits: (value: number) => boolean } | undefined {
  const between = /(?:^|[^\d.-])(-?\d+(?:\.\d+)?) to (2\^\d+-1|\d+|the model's own limit)/.exec(doc);
  if (between !== null) {
    const low = bound(between[1] ?? '');
    const high = between[2]?.startsWith('the') === true ? 2 ** 31 - 1 : bound(between[2] ?? '');
    return { low, high, fits: (value) => value >= low && value <= high };
  }
  const interval = /in ([[(])(\d+), (\d+)([\])])/.exec(doc);
  if (interval === null) return undefined;
  const [low, high] = [Number(interval[2]), Number(interval[3])];
  return {
    low,
    high,
    fits: (v) => (interval[1] === '[' ? v >= low : v > low) && (interval[4] === ']' ? v <= high : v < high),
  };
}

/** Options that take fractions; every other number is a count. */
const FRACTIONS = ['temperature', 'topP', 'minP', 'repetitionPenalty', 'presencePenalty', 'frequencyPenalty'];

/** Values of other kinds that an option takes although its type alone does not tell. */
const TAKES: Record<string, (value: unknown) => boolean> = {
  seed: (value) => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0,
  drafter: (value) => value === false || typeof value === 'string',
  stop: (value) => typeof value === 'string',
  logitBias: (value) => typeof value === 'object' && value !== null,
  prefixKey: (value) => typeof value === 'string',
};

const PROBES = [-1, 0, -0, 1, NaN, Infinity, -Infinity, 1e-45, 0.5, 2 ** 53, 2 ** 64, '1', null, true, false, {}, 1n];

const MODEL = { vocab: 100, contextTokens: 512, hasDrafter: true, eosTokenIds: [] };

const INTERFACES: Record<string, (options: unknown) => unknown> = {
  MemoryOptions: (options) => resolveEngine('model', options as never),
  LoadOptions: (options) => resolveLoad('model', options as never),
  AppendOptions: (options) => resolveAppend(options as never),
  SaveOptions: (options) => resolveSave(options as never),
  SessionOptions: (options) => resolveSession(options as never),
  GenerateOptions: (options) => resolveGenerate(options as never, MODEL),
  GenerateManyOptions: (options) => resolveGenerateMany(options as never, MODEL),
};

const path = new URL('../../lib/option-types.ts', import.meta.url);
const source = ts.createSourceFile('option-types.ts', readFileSync(path, 'utf8'), ts.ScriptTarget.ES2023, true);

function outcome(resolve: (options: unknown) => unknown, options: unknown): 'taken' | 'refused' {
  try {
    resolve(options);
    return 'taken';
  } catch (error) {
    if (error instanceof RedrafterError && error.code === 'ERR_INVALID_ARGUMENT') return 'refused';
    throw error;
  }
}

/** Values to try, and whether the documentation says that they are taken. */
function casesOf({ name, type, doc }: Option): [unknown, boolean][] {
  const range = rangeOf(doc);
  const probes = range === undefined ? PROBES : [...PROBES, range.low - 1, range.low, range.high, range.high + 1];
  const takes = (value: unknown): boolean => {
    if (name in TAKES) return TAKES[name]?.(value) === true || (name === 'seed' && value === 1n);
    if (type === 'number' && typeof value === 'number') {
      return range?.fits(value) === true && (FRACTIONS.includes(name) || Number.isInteger(value));
    }
    return type === 'boolean' && typeof value === 'boolean';
  };
  return [...probes.map((value): [unknown, boolean] => [value, takes(value)]), [undefined, true]];
}

describe.each(Object.keys(INTERFACES))('%s', (name) => {
  const resolve = INTERFACES[name] ?? (() => undefined);
  const options = optionsOf(source, name);

  it.each(options)('$name is documented, and checked as documented', (option) => {
    const isHook = option.name === 'signal' || option.name === 'onProgress';
    if (!isHook) expect(option.doc).toContain('Default: ');
    if (option.type === 'number') expect(rangeOf(option.doc)).toBeDefined();
    for (const [value, taken] of casesOf(option)) {
      const got = outcome(resolve, { [option.name]: value });
      expect([option.name, value, got]).toEqual([option.name, value, taken ? 'taken' : 'refused']);
    }
  });

  it('has no option that is not documented', () => {
    // What reads the options tells which keys it looks for.
    const asked = new Set<string>();
    const spy = new Proxy({}, { get: (_, key) => void asked.add(String(key)), ownKeys: () => [] });
    resolve(spy);
    expect([...asked].sort()).toEqual(options.map((option) => option.name).sort());
  });
});

it('the test reads what it should', () => {
  expect(rangeOf('/** Worker threads, 1 to 1024. */')).toMatchObject({ low: 1, high: 1024 });
  expect(rangeOf('/** Most, 1 to 2^31-1. */')).toMatchObject({ low: 1, high: 2 ** 31 - 1 });
  const open = rangeOf('/** mass, in (0, 1]. */');
  expect([0, 1e-45, 1, 1.1].map((value) => open?.fits(value))).toEqual([false, true, true, false]);
  expect(rangeOf('/** Subtracted, -2 to 2. */')).toMatchObject({ low: -2, high: 2 });
  expect(rangeOf('/** From 0.01 to 100; more. */')).toMatchObject({ low: 0.01, high: 100 });
  expect(rangeOf('/** Nothing said. */')).toBeUndefined();
  expect(optionsOf(source, 'LoadOptions').map((option) => option.name)).toContain('threads');
});
