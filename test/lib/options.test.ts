import { describe, expect, it } from 'vitest';

import { RedrafterError } from '../../lib/errors.js';
import {
  copyIds,
  resolveAppend,
  resolveGenerate,
  resolveGenerateMany,
  resolveLoad,
  seedOfSample,
} from '../../lib/options.js';
import type { GenerateManyOptions, GenerateOptions, LoadOptions } from '../../lib/index.js';

const MODEL = { vocab: 100, contextTokens: 512, hasDrafter: true, eosTokenIds: [7] };

function generate(options: unknown): ReturnType<typeof resolveGenerate> {
  return resolveGenerate(options as GenerateOptions, MODEL);
}

function load(options: unknown, directory: unknown = 'model'): ReturnType<typeof resolveLoad> {
  return resolveLoad(directory, options as LoadOptions);
}

/** Calls `work`, which must throw ERR_INVALID_ARGUMENT, and returns the message. */
function refusal(work: () => unknown, code = 'ERR_INVALID_ARGUMENT'): string {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(RedrafterError);
    expect((error as RedrafterError).code).toBe(code);
    return (error as RedrafterError).message;
  }
  throw new Error('nothing was thrown');
}

/** Values that no numeric option takes. */
const NOT_NUMBERS = [NaN, Infinity, -Infinity, '1', null, true, 1n, [1], {}, () => 1];

const TABLE: Record<string, { good: number[]; bad: unknown[] }> = {
  maxTokens: { good: [1, 256, 2 ** 31 - 1], bad: [0, -1, 1.5, 2 ** 31, 2 ** 53, ...NOT_NUMBERS] },
  temperature: { good: [0, -0, 1e-45, 0.7, 100], bad: [-1, -1e-9, 100.1, ...NOT_NUMBERS] },
  topK: { good: [0, 1, 2 ** 31 - 1], bad: [-1, 0.5, 2 ** 31, ...NOT_NUMBERS] },
  topP: { good: [1e-9, 0.5, 1], bad: [0, -0, -1, 1.0001, ...NOT_NUMBERS] },
  minP: { good: [0, 0.05, 0.999], bad: [-0.1, 1, 2, ...NOT_NUMBERS] },
  beamWidth: { good: [0, 1, 64], bad: [-1, 65, 1.5, ...NOT_NUMBERS] },
  beamLength: { good: [0, 1, 8], bad: [-1, 9, 1.5, ...NOT_NUMBERS] },
  logprobs: { good: [0, 1, 64], bad: [-1, 65, 0.5, ...NOT_NUMBERS] },
  repetitionPenalty: { good: [0.01, 1, 1.3, 100], bad: [0, -1, 0.009, 100.1, ...NOT_NUMBERS] },
  presencePenalty: { good: [-2, -0, 0.5, 2], bad: [-2.1, 2.1, ...NOT_NUMBERS] },
  frequencyPenalty: { good: [-2, 0, 0.5, 2], bad: [-2.1, 2.1, ...NOT_NUMBERS] },
  minTokens: { good: [0, 1, 2 ** 31 - 1], bad: [-1, 0.5, 2 ** 31, ...NOT_NUMBERS] },
};

describe('generate options', () => {
  for (const [key, { good, bad }] of Object.entries(TABLE)) {
    it(`${key} has a range`, () => {
      for (const value of good) {
        const native = generate({ [key]: value }).native as unknown as Record<string, number>;
        if (!key.startsWith('beam')) expect(native[key]).toBe(value + 0);
      }
      for (const value of bad) expect(refusal(() => generate({ [key]: value }))).toContain(key);
    });
  }

  it('has the documented defaults', () => {
    for (const options of [undefined, {}, { maxTokens: undefined, stop: undefined, seed: undefined }]) {
      const { native, stop, parseSpecialTokens, signal } = generate(options);
      expect(native).toMatchObject({ maxTokens: 256, temperature: 0, topK: 0, topP: 1, minP: 0, logprobs: -1 });
      expect(native).toMatchObject({ priority: 0, deadlineMs: 0, bufferTokens: 64 });
      expect(native).toMatchObject({ adaptive: true, beamWidth: 0, beamLength: 0, eosTokenIds: Int32Array.of(7) });
      expect(native.stopTokenIds).toHaveLength(0);
      expect(native).toMatchObject({ repetitionPenalty: 1, presencePenalty: 0, frequencyPenalty: 0, minTokens: 0 });
      for (const key of ['bannedTokenIds', 'biasTokenIds', 'biases'] as const) expect(native[key]).toHaveLength(0);
      expect([stop, parseSpecialTokens, signal]).toEqual([[], false, undefined]);
    }
  });

  it('passes on a topP that is more than 0 in single precision too', () => {
    expect(Math.fround(generate({ topP: 5e-324 }).native.topP)).toBeGreaterThan(0);
    expect(Math.fround(generate({ topP: 1e-45 }).native.topP)).toBeGreaterThan(0);
  });

  it('turns -0 into 0', () => {
    expect(Object.is(generate({ temperature: -0 }).native.temperature, 0)).toBe(true);
    expect(Object.is(generate({ topK: -0 }).native.topK, 0)).toBe(true);
  });

  it('drafts only with a drafter and a shape', () => {
    const shape = (options: unknown, hasDrafter = true): [number, number] | 'adaptive' => {
      const { native } = resolveGenerate(options as GenerateOptions, { ...MODEL, hasDrafter });
      if (native.adaptive) expect([native.beamWidth, native.beamLength]).toEqual([0, 0]);
      return native.adaptive ? 'adaptive' : [native.beamWidth, native.beamLength];
    };
    expect(shape({})).toBe('adaptive');
    expect(shape({ drafting: true, beamWidth: undefined })).toBe('adaptive');
    expect(shape({}, false)).toEqual([0, 0]);
    expect(shape({ drafting: false })).toEqual([0, 0]);
    expect(shape({ beamWidth: 2 })).toEqual([2, 4]);
    expect(shape({ beamLength: 2 })).toEqual([1, 2]);
    expect(shape({ beamWidth: 8, beamLength: 5 })).toEqual([8, 5]);
    expect(shape({ beamWidth: 0, beamLength: 5 })).toEqual([0, 0]);
    expect(shape({ beamWidth: 8, beamLength: 0 })).toEqual([0, 0]);
    expect(shape({ drafting: false, beamWidth: 8, beamLength: 5 })).toEqual([0, 0]);
    expect(shape({ beamWidth: 8, beamLength: 5 }, false)).toEqual([0, 0]);
  });

  it('takes seeds over the whole 64-bit range', () => {
    for (const [seed, value] of [
      [0, 0n],
      [-0, 0n],
      [Number.MAX_SAFE_INTEGER, 9007199254740991n],
      [0n, 0n],
      [(1n << 64n) - 1n, 18446744073709551615n],
    ] as const) {
      expect(generate({ seed }).native.seed).toBe(value);
    }
    for (const seed of [-1, 1.5, 2 ** 53, NaN, -1n, 1n << 64n, '1', null, {}]) refusal(() => generate({ seed }));
    const seeds = new Set(Array.from({ length: 32 }, () => generate({}).native.seed));
    expect(seeds.size).toBe(32);
  });

  it('checks stop strings', () => {
    expect(generate({ stop: 'x' }).stop).toEqual(['x']);
    expect(generate({ stop: [] }).stop).toEqual([]);
    expect(generate({ stop: Array.from({ length: 64 }, () => 'y'.repeat(1024)) }).stop).toHaveLength(64);
    const bad = [
      '',
      [''],
      [1],
      [null],
      1,
      {},
      Array.from({ length: 65 }, () => 'x'),
      ['x'.repeat(1025)],
      'x'.repeat(1 << 20),
    ];
    for (const stop of bad) expect(refusal(() => generate({ stop }))).toContain('stop');
    // eslint-disable-next-line no-sparse-arrays -- the hole is the case
    refusal(() => generate({ stop: ['a', , 'b'] }));
    refusal(() => generate({ stop: ['\ud800'] }));
    refusal(() => generate({ stop: Array.from({ length: 10_000 }, () => 'x') }));
  });

  it('checks stop token ids and the EOS switch', () => {
    expect(generate({ stopTokenIds: [0, 99] }).native.stopTokenIds).toEqual(Int32Array.of(0, 99));
    for (const stopTokenIds of [[100], [-1], ['1'], 5, null, Array.from({ length: 1025 }, () => 1)]) {
      refusal(() => generate({ stopTokenIds }));
    }
    expect(generate({ ignoreEos: true }).native.eosTokenIds).toHaveLength(0);
    for (const ignoreEos of [1, 'true', null]) refusal(() => generate({ ignoreEos }));
  });

  it('takes biases from objects and maps', () => {
    const of = (logitBias: unknown): [number, number][] => {
      const { biasTokenIds, biases } = generate({ logitBias }).native;
      return Array.from(biasTokenIds, (id, i) => [id, biases[i] ?? NaN]);
    };
    expect(of({ 5: -100, 99: 2.5 })).toEqual([[5, -100], [99, 2.5]]); // prettier-ignore
    expect(of(new Map([[99, 100], [0, 0]]))).toEqual([[99, 100], [0, 0]]); // prettier-ignore
    expect(of(Object.assign(Object.create(null) as object, { 7: 1 }))).toEqual([[7, 1]]);
    expect(of({})).toEqual([]);
    const bad: unknown[] = [{ 100: 1 }, { '-1': 1 }, { '1.5': 1 }, { '01': 1 }, { '1e1': 1 }, { x: 1 }, { 5: 101 }];
    bad.push({ 5: -101 }, { 5: NaN }, { 5: Infinity }, { 5: '1' }, { 5: null }, { 5: 1n }, { 4294967296: 1 });
    bad.push(new Map([['5', 1]]), new Map([[5.5, 1]]), new Map([[100, 1]]), new Set([5]), [1], Float32Array.of(1));
    bad.push(null, 1, 'x', new Date(), new Map(Array.from({ length: 1025 }, (_, i) => [i, 1])));
    for (const logitBias of bad) expect(refusal(() => generate({ logitBias }))).toContain('logitBias');
  });

  it('takes banned ids, and refuses to ban all there are', () => {
    const all = Array.from({ length: 100 }, (_, id) => id);
    expect(generate({ bannedTokenIds: [3, 3, 99] }).native.bannedTokenIds).toEqual(Int32Array.of(3, 3, 99));
    expect(generate({ bannedTokenIds: all.slice(1) }).native.bannedTokenIds).toHaveLength(99);
    expect(refusal(() => generate({ bannedTokenIds: all }))).toBe('bannedTokenIds leaves no token that can be chosen');
    // What ends generation is held back too: id 7 is the model's.
    const rest = all.filter((id) => id !== 7 && id !== 8);
    const held = { bannedTokenIds: rest, stopTokenIds: [8], minTokens: 1 };
    expect(refusal(() => generate(held))).toBe('bannedTokenIds and minTokens leave no token that can be chosen');
    for (const open of [{ minTokens: 0 }, { stopTokenIds: [] }, { ignoreEos: true }]) generate({ ...held, ...open });
    for (const bannedTokenIds of [[100], [-1], ['1'], 5, null, new Set([1]), new Int32Array(65_537)]) {
      expect(refusal(() => generate({ bannedTokenIds }))).toContain('bannedTokenIds');
    }
  });

  it('takes a number of samples, with seeds that follow each other', () => {
    const many = (options: unknown): number => resolveGenerateMany(options as GenerateManyOptions, MODEL).n;
    expect([many(undefined), many({}), many({ n: 5 }), many({ n: 128 })]).toEqual([1, 1, 5, 128]);
    for (const n of [0, 129, 1.5, ...NOT_NUMBERS]) refusal(() => many({ n }));
    expect(refusal(() => generate({ n: 2 }))).toContain('unknown option');
    expect([seedOfSample(5n, 0), seedOfSample(5n, 3), seedOfSample((1n << 64n) - 1n, 2)]).toEqual([5n, 8n, 1n]);
  });

  it('refuses unknown options, with a suggestion', () => {
    expect(refusal(() => generate({ max_tokens: 1 }))).toContain('did you mean maxTokens?');
    expect(refusal(() => generate({ temprature: 1 }))).toContain('did you mean temperature?');
    expect(refusal(() => generate({ zzz: 1 }))).not.toContain('did you mean');
    expect(refusal(() => load({ contextTokns: 1 }))).toContain('did you mean contextTokens?');
    for (const options of [null, 1, 'x', [], true]) refusal(() => generate(options));
  });

  it('reads every option once', () => {
    let reads = 0;
    const options = {
      get maxTokens() {
        return ++reads === 1 ? 5 : NaN;
      },
    };
    expect(generate(options).native.maxTokens).toBe(5);
    expect(reads).toBe(1);
  });

  it('lets a getter throw through', () => {
    const options = {
      get maxTokens(): number {
        throw new RangeError('mine');
      },
    };
    expect(() => generate(options)).toThrow(RangeError);
  });

  it('wants a real AbortSignal', () => {
    const { signal } = new AbortController();
    expect(generate({ signal }).signal).toBe(signal);
    expect(resolveAppend({ signal }).signal).toBe(signal);
    for (const bad of [{}, { aborted: false }, null, 1]) refusal(() => generate({ signal: bad }));
  });
});

describe('load options', () => {
  it('has defaults that leave the choice to native code', () => {
    expect(load(undefined).native).toEqual({
      model: 'model',
      drafter: null,
      device: 'auto',
      dtype: 'auto',
      drafterDtype: 'auto',
      threads: 0,
      contextTokens: 0,
      kvTokens: 0,
      prefillChunk: 0,
      maxActiveRequests: 0,
      maxQueuedRequests: 0,
      maxQueuedTokens: 0,
      prefixCacheBytes: -1,
      memoryBudgetBytes: 0,
    });
  });

  it('checks values', () => {
    for (const device of ['auto', 'cpu', 'cuda', 'cpu:avx2', 'cpu:base', 'cuda:sm_90']) {
      expect(load({ device }).native.device).toBe(device);
    }
    for (const dtype of ['auto', 'f32', 'f16', 'bf16', 'q8_0', 'q4_0'])
      expect(load({ dtype }).native.dtype).toBe(dtype);
    for (const dtype of ['', 'q8', 'q4_1', 'F32', 'fp16', 'f64', 'mixed', 16, null, ['f32']])
      refusal(() => load({ dtype }));
    for (const drafterDtype of ['auto', 'f32', 'f16', 'bf16', 'q8_0', 'q4_0'])
      expect(load({ drafterDtype }).native).toMatchObject({ drafterDtype, dtype: 'auto' });
    for (const drafterDtype of ['', 'q8', 'q4_1', 'F32', 'f64', 'mixed', 8, null, ['f32']])
      refusal(() => load({ drafterDtype }));
    for (const device of ['', 'gpu', 'CPU', 'cpu:', 'cpu:../x', 'auto:x', 1, null]) refusal(() => load({ device }));
    for (const key of ['threads', 'contextTokens', 'kvTokens', 'prefillChunk']) {
      for (const bad of [0, -1, 1.5, 2 ** 31, ...NOT_NUMBERS]) refusal(() => load({ [key]: bad }));
      expect(load({ [key]: 1 }).native).toMatchObject({ [key]: 1 });
    }
    for (const bad of [0, -1, 1.5, 2 ** 53, 4n, '4GiB', ...NOT_NUMBERS])
      refusal(() => load({ memoryBudgetBytes: bad }));
    for (const memoryBudgetBytes of [1, 2 ** 53 - 1]) expect(load({ memoryBudgetBytes }).native).toMatchObject({ memoryBudgetBytes }); // prettier-ignore
    for (const onProgress of [1, 'x', null, {}]) refusal(() => load({ onProgress }));
    for (const drafter of [true, '', 'a\0b', 1, null]) refusal(() => load({ drafter }));
    expect(load({ drafter: false }).native.drafter).toBe(null);
    expect(load({ drafter: 'd' }).native.drafter).toBe('d');
    for (const directory of ['', 'a\0b', 1, null, undefined, {}, ['x']]) refusal(() => resolveLoad(directory, {}));
  });
});

describe('copyIds', () => {
  const copy = (ids: unknown): Int32Array => copyIds('ids', ids, 100, 1000);

  it('takes arrays and typed arrays', () => {
    for (const ids of [[0, 99], Int32Array.of(0, 99), Uint32Array.of(0, 99)]) {
      expect(copy(ids)).toEqual(Int32Array.of(0, 99));
    }
    expect(copy([])).toHaveLength(0);
  });

  it('refuses everything that is not a token id', () => {
    for (const id of [-1, 100, 2 ** 31, 2 ** 32 + 5, 1.5, NaN, Infinity, '5', 5n, null, undefined, true, {}]) {
      expect(refusal(() => copy([1, id]))).toContain('ids[1]');
    }
    // eslint-disable-next-line no-sparse-arrays -- the hole is the case
    expect(refusal(() => copy([1, , 2]))).toContain('ids[1]');
    for (const ids of [
      '12',
      5,
      null,
      undefined,
      {},
      { length: 1, 0: 1 },
      new Set([1]),
      Float32Array.of(1),
      Uint8Array.of(1),
    ]) {
      refusal(() => copy(ids));
    }
  });

  it('measures the length before it copies', () => {
    refusal(() => copy(new Array(1001)), 'ERR_CONTEXT');
    refusal(() => copy(new Array(2 ** 32 - 1)), 'ERR_CONTEXT');
  });

  it('reads each element once', () => {
    let reads = 0;
    const ids = [1, 2];
    Object.defineProperty(ids, 1, { get: () => (++reads === 1 ? 2 : NaN) });
    expect(copy(ids)).toEqual(Int32Array.of(1, 2));
    expect(reads).toBe(1);
  });

  it('copies detached and shared buffers safely', () => {
    const detached = Int32Array.of(1, 2, 3);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    expect(copy(detached)).toHaveLength(0);
    const shared = new Int32Array(new SharedArrayBuffer(8));
    shared.set([4, 5]);
    const copied = copy(shared);
    shared.fill(-1);
    expect(copied).toEqual(Int32Array.of(4, 5));
  });
});
