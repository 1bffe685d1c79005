/** The options that change what may be chosen: penalties, biases, bans, a minimal length. */
import { types } from 'node:util';

import { invalid } from './errors.js';
import type { NativeGenerateOptions } from './native.js';
import { copyIds, describe, hasLength, type OptionReader } from './option-reader.js';

export const CONTROL_KEYS = [
  'repetitionPenalty',
  'presencePenalty',
  'frequencyPenalty',
  'logitBias',
  'bannedTokenIds',
  'minTokens',
] as const;

/** Limits of lists, which bound what a request takes of memory and sends to the device in each round. */
const MOST_BIASES = 1024;
const MOST_BANNED = 65_536;

type Control = Pick<
  NativeGenerateOptions,
  | 'repetitionPenalty'
  | 'presencePenalty'
  | 'frequencyPenalty'
  | 'minTokens'
  | 'bannedTokenIds'
  | 'biasTokenIds'
  | 'biases'
>;

/** `endings`: ids that end generation, which `minTokens` holds back. */
export function resolveControl(
  read: OptionReader,
  { vocab, endings }: { vocab: number; endings: readonly number[] },
): Control {
  const between = (key: string, fallback: number, low: number, high: number): number =>
    read.number(key, fallback, `from ${low} to ${high}`, (value) => value >= low && value <= high);
  const minTokens = read.integer('minTokens', 0, 0, 2 ** 31 - 1);
  const bannedTokenIds = banned(read.raw('bannedTokenIds', []), vocab);
  const never = new Set(bannedTokenIds);
  if (minTokens > 0) for (const id of endings) never.add(id);
  if (never.size === vocab) {
    throw invalid(`bannedTokenIds${minTokens > 0 ? ' and minTokens leave' : ' leaves'} no token that can be chosen`);
  }
  return {
    repetitionPenalty: between('repetitionPenalty', 1, 0.01, 100),
    presencePenalty: between('presencePenalty', 0, -2, 2),
    frequencyPenalty: between('frequencyPenalty', 0, -2, 2),
    minTokens,
    bannedTokenIds,
    ...biases(read.raw('logitBias', {}), vocab),
  };
}

function banned(value: unknown, vocab: number): Int32Array {
  if (hasLength(value) && value.length > MOST_BANNED) {
    throw invalid(`bannedTokenIds may hold at most ${MOST_BANNED} ids, got ${value.length}`);
  }
  return copyIds('bannedTokenIds', value, vocab, MOST_BANNED);
}

function biases(value: unknown, vocab: number): Pick<Control, 'biasTokenIds' | 'biases'> {
  if (!types.isMap(value) && !isRecord(value)) {
    throw invalid(`logitBias must be an object or a Map of token ids to numbers, got ${describe(value)}`);
  }
  const entries: [unknown, unknown][] = types.isMap(value) ? [...value] : Object.entries(value).map(numbered);
  if (entries.length > MOST_BIASES) {
    throw invalid(`logitBias may hold at most ${MOST_BIASES} token ids, got ${entries.length}`);
  }
  const biasTokenIds = copyIds('the token ids of logitBias', entries.map(([id]) => id), vocab, MOST_BIASES); // prettier-ignore
  const added = entries.map(([id, bias]) => {
    if (typeof bias === 'number' && bias >= -100 && bias <= 100) return bias;
    throw invalid(`logitBias[${String(id)}] must be a number from -100 to 100, got ${describe(bias)}`);
  });
  return { biasTokenIds, biases: Float32Array.from(added) };
}

/** An object without a class of its own: a Set or an array would pass for one that says nothing. */
function isRecord(value: unknown): value is object {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value) as unknown;
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** Keys of objects are strings; those that are no integer stay as they are, and are refused. */
function numbered([key, bias]: [string, unknown]): [unknown, unknown] {
  return [/^(0|[1-9]\d{0,9})$/.test(key) ? Number(key) : key, bias];
}
