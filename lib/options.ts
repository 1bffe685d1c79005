import { randomBytes } from 'node:crypto';

import { CONTROL_KEYS, resolveControl } from './control-options.js';
import { invalid } from './errors.js';
import { resolveGrammar } from './grammar/options.js';
import type { NativeEngineOptions, NativeGenerateOptions } from './native.js';
import { checkPath, copyIds, describe, hasLength, OptionReader } from './option-reader.js';
import type {
  AppendOptions,
  GenerateManyOptions,
  GenerateOptions,
  LoadOptions,
  MemoryOptions,
  SaveOptions,
  SessionOptions,
} from './option-types.js';

export { checkPath, copyIds, describe, OptionReader };

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
  samples: 128,
  priority: 10,
} as const;

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

const DTYPES = ['auto', 'f32', 'f16', 'bf16', 'q8_0', 'q4_0'] as const;

function dtypeOf(read: OptionReader, key: string): string {
  const value = read.raw(key, 'auto');
  const dtype = DTYPES.find((name) => name === value);
  if (dtype !== undefined) return dtype;
  throw invalid(`${key} must be ${DTYPES.map((name) => `'${name}'`).join(', ')}, got ${describe(value)}`);
}

const MEMORY_KEYS = [
  ...(['drafter', 'device', 'dtype', 'drafterDtype', 'threads'] as const),
  ...(['contextTokens', 'kvTokens', 'prefillChunk', 'memoryBudgetBytes'] as const),
] as const;
const LOAD_KEYS = [
  ...MEMORY_KEYS,
  ...(['maxActiveRequests', 'maxQueuedRequests', 'maxQueuedTokens', 'prefixCacheBytes'] as const),
  ...(['onProgress', 'signal'] as const),
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
  return {
    model,
    drafter: drafter === false ? null : checkPath('drafter', drafter),
    device,
    dtype: dtypeOf(read, 'dtype'),
    drafterDtype: dtypeOf(read, 'drafterDtype'),
    threads: read.integer('threads', 0, 1, LIMITS.threads),
    contextTokens: read.integer('contextTokens', 0, 1, INT_MAX),
    kvTokens: read.integer('kvTokens', 0, 1, INT_MAX),
    prefillChunk: read.integer('prefillChunk', 0, 1, LIMITS.prefillChunk),
    maxActiveRequests: read.integer('maxActiveRequests', 0, 1, INT_MAX),
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
  /** But for what only the session knows. */
  native: Omit<NativeGenerateOptions, 'keepTokens' | 'matcher'>;
  /** What the text must follow, as EBNF. */
  grammar: string | undefined;
  stop: string[];
  parseSpecialTokens: boolean;
  signal: AbortSignal | undefined;
}

const GENERATE_KEYS = [
  ...CONTROL_KEYS,
  'grammar',
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
  return generateOptions(new OptionReader(options, GENERATE_KEYS), model);
}

/** Checked options of `session.generateMany`. */
export function resolveGenerateMany(
  options: GenerateManyOptions | undefined,
  model: GenerateContext,
): ResolvedGenerate & { n: number } {
  const read = new OptionReader(options, ['n', ...GENERATE_KEYS]);
  return { n: read.integer('n', 1, 1, LIMITS.samples), ...generateOptions(read, model) };
}

/** The seed of sample `i`. */
export function seedOfSample(seed: bigint, i: number): bigint {
  return (seed + BigInt(i)) % SEED_END;
}

function generateOptions(read: OptionReader, model: GenerateContext): ResolvedGenerate {
  const width = read.integer('beamWidth', 1, 0, LIMITS.beamWidth);
  const length = read.integer('beamLength', 4, 0, LIMITS.beamLength);
  const drafts = read.boolean('drafting', true) && model.hasDrafter && width > 0 && length > 0;
  const adaptive = drafts && !read.has('beamWidth') && !read.has('beamLength');
  const stopTokenIds = read.raw('stopTokenIds', []);
  if (hasLength(stopTokenIds) && stopTokenIds.length > LIMITS.stopTokenIds) {
    throw invalid(`stopTokenIds may hold at most ${LIMITS.stopTokenIds} ids, got ${stopTokenIds.length}`);
  }
  const eosTokenIds = read.boolean('ignoreEos', false) ? new Int32Array(0) : Int32Array.from(model.eosTokenIds);
  const stops = copyIds('stopTokenIds', stopTokenIds, model.vocab, LIMITS.stopTokenIds);
  return {
    native: {
      ...resolveControl(read, { vocab: model.vocab, endings: [...eosTokenIds, ...stops] }),
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
      eosTokenIds,
      stopTokenIds: stops,
      logprobs: read.integer('logprobs', -1, 0, LIMITS.logprobs),
      priority: read.integer('priority', 0, -LIMITS.priority, LIMITS.priority),
      deadlineMs: read.integer('deadlineMs', 0, 1, INT_MAX),
      bufferTokens: read.integer('bufferTokens', 64, 1, INT_MAX),
      ...slideOf(read.raw('contextPolicy'), model.contextTokens),
    },
    grammar: resolveGrammar(read.raw('grammar')),
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
