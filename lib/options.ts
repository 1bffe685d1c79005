import { randomBytes } from 'node:crypto';

import { invalid, RedrafterError } from './errors.js';
import type { NativeEngineOptions, NativeGenerateOptions } from './native.js';
import type {
  AppendOptions,
  GenerateOptions,
  LoadOptions,
  MemoryOptions,
  SaveOptions,
  SessionOptions,
} from './option-types.js';
import { unpacked } from './package-root.js';

/** Largest 32-bit integer. */
export const INT_MAX = 2 ** 31 - 1;
const SEED_END = 1n << 64n;
const LEAST_FLOAT = 2 ** -149;

/** Limits that are checked before anything crosses into native code. */
export const LIMITS = {
  beamWidth: 64,
  beamLength: 8,
  temperature: 100,
  logprobs: 64,
  stopStrings: 64,
  stopStringUnits: 1024,
  stopTokenIds: 1024,
  prefixKeyUnits: 1024,
  threads: 1024,
  prefillChunk: 4096,
  priority: 10,
} as const;

/** A value for an error message: short, and with its type where that is the problem. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return value.length > 40 ? `a string of ${value.length} units` : JSON.stringify(value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value);
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (value === null || typeof value === 'undefined' || typeof value === 'boolean') return String(value);
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

/** Edit distance, for suggestions. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replace, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/**
 * Reads an options object once: unknown keys are refused, every known key is read a single time, so a getter
 * cannot give one value to the check and another to the work.
 */
export class OptionReader {
  private readonly values = new Map<string, unknown>();

  constructor(options: unknown, keys: readonly string[]) {
    if (options === undefined) return;
    if (typeof options !== 'object' || options === null || Array.isArray(options)) {
      throw invalid(`options must be an object, got ${describe(options)}`);
    }
    for (const key of Object.keys(options)) {
      if (keys.includes(key)) continue;
      const near = keys.filter((known) => distance(known.toLowerCase(), key.toLowerCase()) <= 2)[0];
      throw invalid(`unknown option ${describe(key)}${near === undefined ? '' : `; did you mean ${near}?`}`);
    }
    for (const key of keys) {
      const value = (options as Record<string, unknown>)[key];
      if (value !== undefined) this.values.set(key, value);
    }
  }

  /** The unchecked value, or `fallback` when absent. Only undefined counts as absent: null is a wrong value. */
  raw(key: string, fallback?: unknown): unknown {
    return this.values.has(key) ? this.values.get(key) : fallback;
  }

  has(key: string): boolean {
    return this.values.has(key);
  }

  integer(key: string, fallback: number, low: number, high: number): number {
    const value = this.values.get(key);
    if (value === undefined) return fallback;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < low || value > high) {
      throw invalid(`${key} must be an integer from ${low} to ${high}, got ${describe(value)}`);
    }
    return value + 0; // -0 becomes 0
  }

  /** A finite number for which `fits` holds; `range` says so in words. */
  number(key: string, fallback: number, range: string, fits: (value: number) => boolean): number {
    const value = this.values.get(key);
    if (value === undefined) return fallback;
    if (typeof value !== 'number' || !Number.isFinite(value) || !fits(value)) {
      throw invalid(`${key} must be a number ${range}, got ${describe(value)}`);
    }
    return value + 0;
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.values.get(key);
    if (value === undefined) return fallback;
    if (typeof value !== 'boolean') throw invalid(`${key} must be true or false, got ${describe(value)}`);
    return value;
  }

  signal(): AbortSignal | undefined {
    const value = this.values.get('signal');
    if (value === undefined) return undefined;
    if (!(value instanceof AbortSignal)) throw invalid(`signal must be an AbortSignal, got ${describe(value)}`);
    return value;
  }
}

/** A path, before it is opened; inside an Electron archive the unpacked one. */
export function checkPath(what: string, value: unknown, kind = 'a directory'): string {
  if (typeof value !== 'string' || value.length === 0 || value.includes('\0')) {
    throw invalid(`${what} must be the path of ${kind}, got ${describe(value)}`);
  }
  return unpacked(value);
}

function hasLength(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || value instanceof Int32Array || value instanceof Uint32Array;
}

/**
 * Copies token ids, reading each element once. Refuses what is not an array, and elements that are not integers
 * in [0, vocab): holes, NaN, strings, BigInt, fractions.
 */
export function copyIds(what: string, value: unknown, vocab: number, most: number): Int32Array {
  if (!hasLength(value)) {
    throw invalid(`${what} must be an array of token ids, an Int32Array or a Uint32Array, got ${describe(value)}`);
  }
  const length = value.length;
  if (length > most) throw new RedrafterError('ERR_CONTEXT', `${what} has ${length} token ids, more than ${most}`);
  const ids = new Int32Array(length);
  for (let i = 0; i < length; i++) {
    const id = value[i];
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= vocab) {
      throw invalid(`${what}[${i}] must be a token id from 0 to ${vocab - 1}, got ${describe(id)}`);
    }
    ids[i] = id;
  }
  return ids;
}

function stopStrings(value: unknown): string[] {
  if (value === undefined) return [];
  if (typeof value !== 'string' && !Array.isArray(value)) {
    throw invalid(`stop must be a string or an array of strings, got ${describe(value)}`);
  }
  const list: readonly unknown[] = typeof value === 'string' ? [value] : value;
  if (list.length > LIMITS.stopStrings) {
    throw invalid(`stop may hold at most ${LIMITS.stopStrings} strings, got ${list.length}`);
  }
  return Array.from(list, (stop, i) => {
    if (typeof stop !== 'string' || stop.length === 0 || stop.length > LIMITS.stopStringUnits || !stop.isWellFormed()) {
      throw invalid(
        `stop[${i}] must be a well-formed string of 1 to ${LIMITS.stopStringUnits} UTF-16 units, got ${describe(stop)}`,
      );
    }
    return stop;
  });
}

function seedOf(value: unknown): bigint {
  if (value === undefined) return randomBytes(8).readBigUInt64LE();
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  if (typeof value === 'bigint' && value >= 0n && value < SEED_END) return value;
  throw invalid(`seed must be a bigint from 0 to 2^64-1 or an integer number from 0 to 2^53-1, got ${describe(value)}`);
}

const DTYPES: readonly unknown[] = ['auto', 'f32', 'f16', 'bf16'];

const MEMORY_KEYS = [
  ...['drafter', 'device', 'dtype', 'threads', 'contextTokens', 'kvTokens', 'prefillChunk', 'memoryBudgetBytes'],
] as const;
const LOAD_KEYS = [
  ...MEMORY_KEYS,
  ...(['maxQueuedRequests', 'maxQueuedTokens', 'prefixCacheBytes', 'onProgress', 'signal'] as const),
] as const;

/** Checked arguments of `Model.load`. */
export interface ResolvedLoad {
  native: NativeEngineOptions;
  onProgress: ((fraction: number) => void) | undefined;
  signal: AbortSignal | undefined;
}

/** Checked arguments of `estimateMemory`. */
export function resolveEngine(directory: unknown, options: MemoryOptions | undefined): NativeEngineOptions {
  return engineOptions(directory, new OptionReader(options, MEMORY_KEYS));
}

function engineOptions(directory: unknown, read: OptionReader): NativeEngineOptions {
  const model = checkPath('the model', directory);
  const drafter = read.raw('drafter', false);
  if (drafter === true) throw invalid('drafter must be the path of a directory or false, got true');
  const device = read.raw('device', 'auto');
  if (typeof device !== 'string' || !/^(auto|(cpu|cuda)(:[a-z0-9_.]{1,32})?)$/.test(device)) {
    throw invalid(
      `device must be 'auto', 'cpu', 'cuda' or one of them with a level ('cpu:avx2'), got ${describe(device)}`,
    );
  }
  const dtype = read.raw('dtype', 'auto');
  if (!DTYPES.includes(dtype)) throw invalid(`dtype must be 'auto', 'f32', 'f16' or 'bf16', got ${describe(dtype)}`);
  return {
    model,
    drafter: drafter === false ? null : checkPath('drafter', drafter),
    device,
    dtype: dtype as string,
    threads: read.integer('threads', 0, 1, LIMITS.threads),
    contextTokens: read.integer('contextTokens', 0, 1, INT_MAX),
    kvTokens: read.integer('kvTokens', 0, 1, INT_MAX),
    prefillChunk: read.integer('prefillChunk', 0, 1, LIMITS.prefillChunk),
    maxQueuedRequests: read.integer('maxQueuedRequests', 0, 1, INT_MAX),
    maxQueuedTokens: read.integer('maxQueuedTokens', 0, 1, INT_MAX),
    prefixCacheBytes: read.integer('prefixCacheBytes', -1, 0, Number.MAX_SAFE_INTEGER),
    memoryBudgetBytes: read.integer('memoryBudgetBytes', 0, 1, Number.MAX_SAFE_INTEGER),
  };
}

export function resolveLoad(directory: unknown, options: LoadOptions | undefined): ResolvedLoad {
  const read = new OptionReader(options, LOAD_KEYS);
  const native = engineOptions(directory, read);
  const onProgress = read.raw('onProgress');
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw invalid(`onProgress must be a function, got ${describe(onProgress)}`);
  }
  return {
    native,
    onProgress: onProgress as ResolvedLoad['onProgress'],
    signal: read.signal(),
  };
}

/** What `resolveGenerate` needs to know of the model and the session. */
export interface GenerateContext {
  vocab: number;
  hasDrafter: boolean;
  eosTokenIds: readonly number[];
  contextTokens: number;
}

/** Checked options of `session.generate`. */
export interface ResolvedGenerate {
  native: Omit<NativeGenerateOptions, 'keepTokens'>;
  stop: string[];
  parseSpecialTokens: boolean;
  signal: AbortSignal | undefined;
}

const GENERATE_KEYS = [
  'maxTokens',
  'contextPolicy',
  'temperature',
  'topK',
  'topP',
  'minP',
  'seed',
  'beamWidth',
  'beamLength',
  'drafting',
  'ignoreEos',
  'stop',
  'stopTokenIds',
  'logprobs',
  'priority',
  'deadlineMs',
  'bufferTokens',
  'parseSpecialTokens',
  'signal',
] as const;

/** Default of `maxTokens`. */
export const DEFAULT_MAX_TOKENS = 256;

/** What stays of a full context; see {@link ContextPolicy}. */
function slideOf(policy: unknown, contextTokens: number): { slideKeep: number; slideTail: number } {
  if (policy === undefined || policy === 'error') return { slideKeep: -1, slideTail: 0 };
  if (typeof policy !== 'object' || policy === null) {
    throw invalid(`contextPolicy must be 'error' or { slide: true, keepTokens: n }, got ${describe(policy)}`);
  }
  const read = new OptionReader(policy, ['slide', 'keepTokens']);
  if (!read.boolean('slide', false)) throw invalid("contextPolicy must have slide: true, or be 'error'");
  const slideKeep = read.integer('keepTokens', 0, 0, contextTokens - 2);
  return { slideKeep, slideTail: Math.floor((contextTokens - slideKeep) / 2) };
}

export function resolveGenerate(options: GenerateOptions | undefined, model: GenerateContext): ResolvedGenerate {
  const read = new OptionReader(options, GENERATE_KEYS);
  const width = read.integer('beamWidth', 1, 0, LIMITS.beamWidth);
  const length = read.integer('beamLength', 4, 0, LIMITS.beamLength);
  const drafts = read.boolean('drafting', true) && model.hasDrafter && width > 0 && length > 0;
  const adaptive = drafts && !read.has('beamWidth') && !read.has('beamLength');
  const stopTokenIds = read.raw('stopTokenIds', []);
  if (hasLength(stopTokenIds) && stopTokenIds.length > LIMITS.stopTokenIds) {
    throw invalid(`stopTokenIds may hold at most ${LIMITS.stopTokenIds} ids, got ${stopTokenIds.length}`);
  }
  return {
    native: {
      maxTokens: read.integer('maxTokens', DEFAULT_MAX_TOKENS, 1, INT_MAX),
      temperature: read.number(
        'temperature',
        0,
        `from 0 to ${LIMITS.temperature}`,
        (v) => v >= 0 && v <= LIMITS.temperature,
      ),
      topK: read.integer('topK', 0, 0, INT_MAX),
      // Native code has it in single precision, where less than that would be 0. Either keeps one token.
      topP: Math.max(
        LEAST_FLOAT,
        read.number('topP', 1, 'greater than 0 and at most 1', (v) => v > 0 && v <= 1),
      ),
      minP: read.number('minP', 0, 'at least 0 and less than 1', (v) => v >= 0 && v < 1),
      seed: seedOf(read.raw('seed')),
      beamWidth: drafts && !adaptive ? width : 0,
      beamLength: drafts && !adaptive ? length : 0,
      adaptive,
      eosTokenIds: read.boolean('ignoreEos', false) ? new Int32Array(0) : Int32Array.from(model.eosTokenIds),
      stopTokenIds: copyIds('stopTokenIds', stopTokenIds, model.vocab, LIMITS.stopTokenIds),
      logprobs: read.integer('logprobs', -1, 0, LIMITS.logprobs),
      priority: read.integer('priority', 0, -LIMITS.priority, LIMITS.priority),
      deadlineMs: read.integer('deadlineMs', 0, 1, INT_MAX),
      bufferTokens: read.integer('bufferTokens', 64, 1, INT_MAX),
      ...slideOf(read.raw('contextPolicy'), model.contextTokens),
    },
    stop: stopStrings(read.raw('stop')),
    parseSpecialTokens: read.boolean('parseSpecialTokens', false),
    signal: read.signal(),
  };
}

const APPEND_KEYS = ['parseSpecialTokens', 'signal'] as const;

/** Checked options of `session.append`. */
export interface ResolvedAppend {
  parseSpecialTokens: boolean;
  signal: AbortSignal | undefined;
}

export function resolveAppend(options: AppendOptions | undefined): ResolvedAppend {
  const read = new OptionReader(options, APPEND_KEYS);
  return { parseSpecialTokens: read.boolean('parseSpecialTokens', false), signal: read.signal() };
}

/** The checked key of `model.createSession`; empty for none. */
export function resolveSession(options: SessionOptions | undefined): string {
  const key = new OptionReader(options, ['prefixKey']).raw('prefixKey');
  if (key === undefined) return '';
  if (typeof key !== 'string' || key.length === 0 || key.length > LIMITS.prefixKeyUnits || !key.isWellFormed()) {
    const range = `1 to ${LIMITS.prefixKeyUnits} UTF-16 units`;
    throw invalid(`prefixKey must be a well-formed string of ${range}, got ${describe(key)}`);
  }
  return key;
}

/** The checked signal of `session.save` and `model.restoreSession`. */
export function resolveSave(options: SaveOptions | undefined): AbortSignal | undefined {
  return new OptionReader(options, ['signal']).signal();
}
