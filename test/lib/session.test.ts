import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Model, RedrafterError, type LoadOptions, type Session } from '../../lib/index.js';
import { temporaryDirectory, writeTinyLlama } from '../kit/checkpoint.js';
import { TINY, turn, VOCAB, writeTinyModel } from './tiny.js';

const paths = writeTinyModel();
let model: Model;
let idsOnly: Model;

beforeAll(async () => {
  [model, idsOnly] = await Promise.all([
    Model.load(paths.model, { drafter: paths.drafter, threads: 1 }),
    Model.load(paths.idsOnly, { threads: 1, device: 'cpu:base' }),
  ]);
});

afterAll(async () => {
  await Promise.all([model.dispose(), idsOnly.dispose()]);
});

/** The code that `work` throws or rejects with. */
async function code(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    return error instanceof RedrafterError ? error.code : String(error);
  }
  return 'nothing was thrown';
}

const PROMPT = [72, 101, 108, 108, 111];

async function ids(session: Session, options: Parameters<Session['generate']>[1] = {}): Promise<number[]> {
  return (await session.generate(PROMPT, { maxTokens: 40, ...options }).result()).tokenIds;
}

/** A plain run to compare with. */
async function reference(maxTokens = 40): Promise<number[]> {
  const session = await model.createSession();
  const out = await ids(session, { drafting: false, maxTokens });
  await session.dispose();
  return out;
}

describe('generate', () => {
  it('gives the same ids with drafting, without it, and on another instruction-set level', async () => {
    const plain = await reference();
    expect(plain).toHaveLength(40);
    for (const shape of [{ beamWidth: 1, beamLength: 1 }, { beamWidth: 8, beamLength: 5 }, {}]) {
      const session = await model.createSession();
      expect(await ids(session, shape)).toEqual(plain);
      expect(session.tokens).toBe(45);
      expect([...session.tokenIds]).toEqual([...PROMPT, ...plain]);
      await session.dispose();
    }
  });

  it('repeats sampling from its seed', async () => {
    const session = await model.createSession();
    const first = await session.generate(PROMPT, { maxTokens: 30, temperature: 1 }).result();
    await session.rewind(0);
    const again = { maxTokens: 30, temperature: 1, seed: first.seed, beamWidth: 0 };
    expect((await session.generate(PROMPT, again).result()).tokenIds).toEqual(first.tokenIds);
    await session.rewind(0);
    const other = await session.generate(PROMPT, { ...again, seed: first.seed ^ 1n }).result();
    expect(other.tokenIds).not.toEqual(first.tokenIds);
    await session.dispose();
  });

  it('gives chunks whose concatenation is the result', async () => {
    const session = await model.createSession();
    const run = session.generate('Hello', { maxTokens: 40, logprobs: 3 });
    const seen = { ids: [] as number[], text: '', logprobs: 0 };
    for await (const chunk of run) {
      expect(chunk.accepted).toBeLessThanOrEqual(chunk.tokenIds.length);
      seen.ids.push(...chunk.tokenIds);
      seen.text += chunk.text;
      seen.logprobs += chunk.logprobs?.length ?? 0;
    }
    const result = await run.result();
    expect(seen).toEqual({ ids: result.tokenIds, text: result.text, logprobs: 40 });
    expect(result.text).toBe(model.tokenizer?.decode(result.tokenIds));
    for (const { id, logprob, top } of result.logprobs ?? []) {
      expect(top).toHaveLength(3);
      expect(top[0]).toEqual([id, logprob]); // greedy: the most probable one
      expect(logprob).toBeLessThan(0);
    }
    await session.dispose();
  });

  it('continues where it stopped, as one run would', async () => {
    const whole = await reference(40);
    const session = await model.createSession();
    const parts = await ids(session, { maxTokens: 13 });
    parts.push(...(await session.generate([], { maxTokens: 27 }).result()).tokenIds);
    expect(parts).toEqual(whole);
    await session.dispose();
  });

  it('stops at a stop token, which it keeps, and at the end of the context', async () => {
    const plain = await reference();
    const session = await model.createSession();
    const stop = plain[7] ?? 0;
    const result = await session.generate(PROMPT, { stopTokenIds: [stop] }).result();
    expect(result.finishReason).toBe('stop');
    expect(result.tokenIds).toEqual(plain.slice(0, plain.indexOf(stop) + 1));
    await session.dispose();
    const small = await Model.load(paths.idsOnly, { contextTokens: 20, threads: 1 });
    const limited = await small.createSession();
    const cut = await limited.generate(PROMPT, { maxTokens: 1000 }).result();
    expect([cut.tokenIds.length, cut.finishReason]).toEqual([15, 'length']);
    expect(await code(() => limited.generate([], {}).result())).toBe('ERR_CONTEXT');
    expect(limited.tokens).toBe(20);
    await small.dispose();
  });

  it('cuts at a stop string and goes on from there', async () => {
    const plain = await reference();
    const text = model.tokenizer?.decode(plain) ?? '';
    const stop = text.slice(20, 23);
    const session = await model.createSession();
    const result = await session.generate(PROMPT, { maxTokens: 40, stop: ['never', stop] }).result();
    expect(result).toMatchObject({ finishReason: 'stop', text: text.slice(0, text.indexOf(stop)) });
    expect(result.tokenIds).toEqual(plain.slice(0, result.tokenIds.length));
    expect(model.tokenizer?.decode(result.tokenIds)).toContain(stop);
    expect(session.tokens).toBe(PROMPT.length + result.tokenIds.length);
    const rest = await session.generate([], { maxTokens: 40 - result.tokenIds.length }).result();
    expect([...result.tokenIds, ...rest.tokenIds]).toEqual(plain);
    await session.dispose();
  });

  it('renders messages, and reuses what a session shares with them', async () => {
    const session = await model.createSession();
    const user = { role: 'user', content: 'hello there' };
    const first = await session.generate([user], { maxTokens: 10 }).result();
    expect(first.stats.reusedTokens).toBe(0);
    const chat = [user, { role: 'assistant', content: 'x' }];
    const second = await session.generate(chat, { maxTokens: 10 }).result();
    const shared = model.tokenizer?.encodeChat([user]).length ?? 0;
    expect(second.stats.reusedTokens).toBeGreaterThanOrEqual(shared);
    const fresh = await model.createSession();
    expect((await fresh.generate(chat, { maxTokens: 10 }).result()).tokenIds).toEqual(second.tokenIds);
    await Promise.all([session.dispose(), fresh.dispose()]);
  });

  it('works with ids alone for a model without tokenizer', async () => {
    expect(idsOnly.tokenizer).toBe(null);
    const session = await idsOnly.createSession();
    const result = await session.generate(PROMPT, { maxTokens: 5 }).result();
    expect([result.text, result.tokenIds.length]).toEqual(['', 5]);
    for (const work of [
      () => session.generate('text'),
      () => session.generate([{ role: 'user', content: 'x' }]),
      () => session.generate(PROMPT, { stop: 'x' }),
      () => session.append('text'),
    ]) {
      expect(await code(work)).toBe('ERR_TOKENIZER');
    }
    await session.dispose();
  });
});

describe('ending early', () => {
  const long = { maxTokens: 4000, ignoreEos: true };

  it('keeps exactly what a loop saw', async () => {
    const plain = await reference(400);
    const session = await model.createSession();
    const seen: number[] = [];
    for await (const chunk of session.generate(PROMPT, long)) {
      seen.push(...chunk.tokenIds);
      if (seen.length >= 20) break;
    }
    expect(session.tokens).toBe(PROMPT.length + seen.length);
    const rest = await session.generate([], { maxTokens: 100 }).result();
    expect([...seen, ...rest.tokenIds]).toEqual(plain.slice(0, seen.length + 100));
    await session.dispose();
  });

  it('aborts by abort() with a result', async () => {
    const session = await model.createSession();
    const run = session.generate(PROMPT, long);
    await turn(5);
    run.abort();
    const result = await run.result();
    expect(result.finishReason).toBe('abort');
    expect(session.tokens).toBe(PROMPT.length + result.tokenIds.length);
    await session.dispose();
  });

  it('rejects by its signal and leaves the session usable', async () => {
    const plain = await reference();
    const session = await model.createSession();
    const controller = new AbortController();
    const run = session.generate(PROMPT, { ...long, signal: controller.signal });
    setTimeout(() => { controller.abort(); }, 5); // prettier-ignore
    expect(await code(() => run.result())).toBe('ERR_ABORTED');
    expect(await code(() => session.generate([], { signal: controller.signal }))).toBe('ERR_ABORTED');
    await session.rewind(0);
    expect(await ids(session)).toEqual(plain);
    await session.dispose();
  });

  it('aborts before the first round', async () => {
    const session = await model.createSession();
    const run = session.generate(PROMPT, long);
    run.abort();
    expect((await run.result()).finishReason).toBe('abort');
    await session.dispose();
  });

  it('fails with ERR_DISPOSED when the session is disposed of', async () => {
    const session = await model.createSession();
    const run = session.generate(PROMPT, long);
    await turn(5);
    await Promise.all([session.dispose(), session.dispose()]);
    expect(await code(() => run.result())).toBe('ERR_DISPOSED');
    expect(await code(() => session.generate(PROMPT))).toBe('ERR_DISPOSED');
    expect(await code(() => session.append(PROMPT))).toBe('ERR_DISPOSED');
    expect(await code(() => session.fork())).toBe('ERR_DISPOSED');
    expect(await code(() => session.rewind(0))).toBe('ERR_DISPOSED');
  });

  it('frees the KV cache of disposed sessions', async () => {
    const before = model.kvUsage();
    expect(before.usedBytes).toBe(0);
    const sessions = await Promise.all(Array.from({ length: 4 }, () => model.createSession()));
    await Promise.all(sessions.map((session) => ids(session)));
    expect(model.kvUsage().sessions).toBe(before.sessions + 4);
    expect(model.kvUsage().usedBytes).toBeGreaterThan(0);
    await Promise.all(sessions.map((session) => session.dispose()));
    expect(model.kvUsage()).toEqual(before);
  });
});

describe('prefixes', () => {
  const text = 'A prompt that many begin with, longer than a few blocks of sixteen bytes each. ';
  const reusedOf = async (session: Session, more: string): Promise<number> => {
    await session.rewind(0);
    const { stats } = await session.generate(text + more, { maxTokens: 2, ignoreEos: true }).result();
    return stats.reusedTokens;
  };

  it('are shared by sessions and forks of one key, and by nobody else', async () => {
    const all = Math.floor(text.length / 16) * 16;
    const first = await model.createSession({ prefixKey: 'tenant' });
    expect(await reusedOf(first, 'x')).toBe(0);
    const fork = await first.fork();
    await first.dispose();
    expect(model.kvUsage()).toMatchObject({ sessions: 1, prefixBlocks: 0 });
    await fork.dispose();
    const { prefixBlocks, prefixBytes, usedBytes, totalBytes, totalBlocks } = model.kvUsage();
    expect([prefixBlocks, usedBytes]).toEqual([Math.floor((text.length + 2) / 16), 0]);
    expect(prefixBytes).toBe((prefixBlocks * totalBytes) / totalBlocks);
    expect(model.memoryUsage().kvUsedBytes).toBe(0);
    for (const [options, reused] of [
      [{ prefixKey: 'tenant' }, all],
      [{ prefixKey: 'tenant2' }, 0],
      [{ prefixKey: 'tenant\0' }, 0],
      [{ prefixKey: 'ten\u00e4nt' }, 0],
      [{}, 0],
      [undefined, 0],
    ] as const) {
      const session = await model.createSession(options);
      expect([options, await reusedOf(session, 'yz')]).toEqual([options, reused]);
      await session.dispose();
    }
    await model.clearPrefixes('tenant');
    const later = await model.createSession({ prefixKey: 'tenant' });
    expect(await reusedOf(later, 'x')).toBe(0);
    await later.dispose();
    await model.clearPrefixes();
    expect(model.kvUsage()).toMatchObject({ prefixBlocks: 0, freeBlocks: totalBlocks });
  });

  it('a session without a key has its own, and takes them with it', async () => {
    const session = await model.createSession();
    expect(await reusedOf(session, 'x')).toBe(0);
    expect(await reusedOf(session, 'a different end')).toBeGreaterThan(63);
    await session.dispose();
    expect(model.kvUsage()).toMatchObject({ prefixBlocks: 0, usedBytes: 0 });
  });

  it('blocks that sessions share are told by session, and count once', async () => {
    const session = await model.createSession();
    await session.append(text.slice(0, 72));
    expect(session.kv).toMatchObject({ tokens: 72, blocks: 5, sharedBlocks: 0 });
    const { usedBytes } = model.kvUsage();
    const fork = await session.fork();
    expect([session.kv.sharedBlocks, fork.kv.sharedBlocks]).toEqual([5, 5]);
    expect(model.kvUsage().usedBytes).toBe(usedBytes);
    await fork.append('more');
    expect([session.kv.sharedBlocks, fork.kv.sharedBlocks]).toEqual([4, 4]);
    await fork.dispose();
    expect(session.kv.sharedBlocks).toBe(0);
    await session.dispose();
  });

  it('can be turned off', async () => {
    const plain = await Model.load(paths.model, { threads: 1, prefixCacheBytes: 0 });
    const session = await plain.createSession({ prefixKey: 'tenant' });
    expect([await reusedOf(session, 'x'), await reusedOf(session, 'x')]).toEqual([0, 0]);
    await session.dispose();
    expect(plain.kvUsage()).toMatchObject({ prefixBlocks: 0, usedBytes: 0 });
    await plain.dispose();
  });

  it('keys are checked', async () => {
    for (const prefixKey of ['', 'x'.repeat(1025), '\ud800', 5, null, ['a']]) {
      expect(await code(() => model.createSession({ prefixKey } as never))).toBe('ERR_INVALID_ARGUMENT');
      expect(await code(() => model.clearPrefixes(prefixKey as never))).toBe('ERR_INVALID_ARGUMENT');
    }
    expect(await code(() => model.createSession({ key: 'a' } as never))).toBe('ERR_INVALID_ARGUMENT');
  });
});

describe('one operation at a time', () => {
  it('refuses a second one', async () => {
    const session = await model.createSession();
    const run = session.generate(PROMPT, { maxTokens: 200, ignoreEos: true });
    expect(await code(() => session.generate(PROMPT))).toBe('ERR_BUSY');
    expect(await code(() => session.append(PROMPT))).toBe('ERR_BUSY');
    expect(await code(() => session.fork())).toBe('ERR_BUSY');
    expect(await code(() => session.rewind(0))).toBe('ERR_BUSY');
    expect((await run.result()).tokenIds).toHaveLength(200);
    await session.rewind(0);
    await session.dispose();
  });

  it('runs sessions side by side with the same ids as alone', async () => {
    const plain = await reference();
    const sessions = await Promise.all(Array.from({ length: 6 }, () => model.createSession()));
    for (const out of await Promise.all(sessions.map((session) => ids(session)))) expect(out).toEqual(plain);
    await Promise.all(sessions.map((session) => session.dispose()));
  });
});

describe('append, fork and rewind', () => {
  it('forks several times at once, and goes on meanwhile', async () => {
    const plain = await reference();
    const session = await model.createSession();
    await session.append(PROMPT);
    const forking = [session.fork(), session.fork(), session.fork()];
    const run = session.generate([9], { maxTokens: 5 }).result();
    const forks = await Promise.all(forking);
    expect(forks.map(({ tokens }) => tokens)).toEqual([5, 5, 5]);
    const outs = await Promise.all(forks.map((fork) => fork.generate([], { maxTokens: 40 }).result()));
    for (const { tokenIds } of outs) expect(tokenIds).toEqual(plain);
    expect((await run).tokenIds).not.toEqual(plain.slice(0, 5));
    await Promise.all([session, ...forks].map((each) => each.dispose()));
  });

  it('append computes ahead, fork continues alike, rewind goes back', async () => {
    const plain = await reference();
    const session = await model.createSession();
    await session.append(PROMPT.slice(0, 3));
    await session.append(PROMPT.slice(3));
    expect([session.tokens, session.kv.tokens]).toEqual([5, 5]);
    expect(session.kv.bytes).toBeGreaterThan(0);
    const fork = await session.fork();
    expect(fork.tokens).toBe(5);
    expect((await session.generate([], { maxTokens: 40 }).result()).tokenIds).toEqual(plain);
    expect((await fork.generate([], { maxTokens: 40 }).result()).tokenIds).toEqual(plain);
    await session.rewind(15);
    expect(session.tokens).toBe(15);
    expect((await session.generate([], { maxTokens: 30 }).result()).tokenIds).toEqual(plain.slice(10));
    for (const n of [-1, 46, 1.5, NaN, '3', null, undefined, 3n]) {
      expect(await code(() => session.rewind(n as number))).toBe('ERR_INVALID_ARGUMENT');
    }
    await Promise.all([session.dispose(), fork.dispose()]);
  });

  it('append takes text and nothing', async () => {
    const session = await model.createSession();
    await session.append('Hello');
    await session.append([]);
    expect([...session.tokenIds]).toEqual([...(model.tokenizer?.encode('Hello') ?? [])]);
    await session.dispose();
  });

  it('an aborted append leaves the session as it was', async () => {
    const session = await model.createSession();
    await session.append(PROMPT);
    const controller = new AbortController();
    const work = session.append(
      Array.from({ length: 3000 }, (_, i) => i % VOCAB),
      { signal: controller.signal },
    );
    controller.abort();
    expect(await code(() => work)).toBe('ERR_ABORTED');
    expect([session.tokens, session.kv.tokens]).toEqual([5, 5]);
    expect((await session.generate([], { maxTokens: 40 }).result()).tokenIds).toEqual(await reference());
    await session.dispose();
  });

  it('a request that does not fit the cache fails and changes nothing', async () => {
    const small = await Model.load(paths.idsOnly, { contextTokens: 2000, kvTokens: 64, threads: 1 });
    const session = await small.createSession();
    await session.append(PROMPT);
    const run = session.generate([1, 2, 3], { maxTokens: 1900 });
    expect(await code(() => run.result())).toBe('ERR_KV_FULL');
    expect([...session.tokenIds]).toEqual(PROMPT);
    expect((await session.generate([], { maxTokens: 5 }).result()).tokenIds).toHaveLength(5);
    await small.dispose();
  });
});

describe('bad input', () => {
  it('is refused before it crosses, and the session stays usable', async () => {
    const session = await model.createSession();
    for (const input of [
      null,
      undefined,
      5,
      {},
      new Set([1]),
      [1, 'x'],
      [VOCAB],
      [-1],
      [NaN],
      [1.5],
      [2 ** 32 + 5],
      ['5'],
      [5n],
      [[]],
    ]) {
      expect(await code(() => session.generate(input as never))).toBe('ERR_INVALID_ARGUMENT');
    }
    expect(await code(() => session.generate([]).result())).toBe('ERR_INVALID_ARGUMENT');
    expect(await code(() => session.generate('').result())).toBe('ERR_INVALID_ARGUMENT');
    expect(await code(() => session.generate(new Array<number>(5000).fill(1)))).toBe('ERR_CONTEXT');
    expect(session.tokens).toBe(0);
    expect(await ids(session)).toEqual(await reference());
    await session.dispose();
  });

  it('that does not fit, or is nothing, is refused at once', async () => {
    const session = await idsOnly.createSession();
    const { contextTokens } = idsOnly.info;
    const ids = (count: number): number[] => Array<number>(count).fill(1);
    expect(() => session.generate([])).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }) as Error);
    await session.append(ids(10));
    for (const input of [ids(contextTokens - 10), ids(contextTokens), ids(contextTokens + 1)]) {
      expect(() => session.generate(input)).toThrow(expect.objectContaining({ code: 'ERR_CONTEXT' }) as Error);
    }
    expect((await session.generate(ids(contextTokens - 11), { maxTokens: 5 }).result()).tokenIds).toHaveLength(1);
    await session.dispose();
  });

  it('takes a prompt that is longer than the arguments of a call can be', async () => {
    const directory = join(temporaryDirectory('long-context'), 'model');
    writeTinyLlama(directory, { ...TINY, maxPositions: 300_000 }, 11);
    await using long = await Model.load(directory, { contextTokens: 300_000, kvTokens: 300_000, threads: 1 });
    await using session = await long.createSession();
    const prompt = new Int32Array(280_000).fill(7);
    for (const start of [
      (signal: AbortSignal) => session.append(prompt, { signal }),
      (signal: AbortSignal) => session.generate(prompt, { signal }).result(),
    ]) {
      const controller = new AbortController();
      const work = start(controller.signal);
      expect(session.tokens).toBe(280_000);
      controller.abort(); // reading all of it would take a while
      expect(await code(() => work)).toBe('ERR_ABORTED');
      await session.rewind(0);
    }
  });

  it('is as it was when the tokenizer fails to begin', async () => {
    const session = await idsOnly.createSession();
    const broken = { detokenizer: (): never => { throw new Error('broken'); } }; // prettier-ignore
    const owner = Reflect.get(session, 'owner') as object;
    Reflect.set(session, 'owner', { ...owner, tokenizer: broken });
    expect(await code(() => session.generate(PROMPT))).toBe('ERR_INTERNAL');
    Reflect.set(session, 'owner', owner);
    expect(await ids(session)).toHaveLength(40);
    await session.dispose();
  });

  it('notices a getter that disposes of the session', async () => {
    const session = await model.createSession();
    const input = [1, 2];
    Object.defineProperty(input, 1, { get: () => (void session.dispose(), 2) });
    expect(await code(() => session.generate(input))).toBe('ERR_DISPOSED');
  });
});

describe('Model', () => {
  it('tells what it is', () => {
    expect(model.info).toMatchObject({ family: 'llama', vocab: VOCAB, layers: 2, drafter: { cell: 'gru' } });
    expect(idsOnly.info).toMatchObject({ device: 'cpu', level: 'base', drafter: null });
  });

  it('reports progress, up to 1', async () => {
    const seen: number[] = [];
    const loaded = await Model.load(paths.model, { onProgress: (fraction) => seen.push(fraction), threads: 1 });
    expect(seen.at(-1)).toBe(1);
    expect(seen).toEqual([...seen].sort((a, b) => a - b)); // it never falls
    expect(seen[0]).toBeGreaterThanOrEqual(0);
    await loaded.dispose();
  });

  it('obeys a signal at every stage of loading', async () => {
    const whenRead = (then: () => void): LoadOptions => ({
      onProgress(fraction) {
        if (fraction === 1) then();
      },
    });
    const stages: Record<string, (abort: () => void) => LoadOptions> = {
      'in the same turn': (abort) => {
        queueMicrotask(abort);
        return {};
      },
      'when all weights are read': (abort) => whenRead(abort),
      'while the tokenizer is read': (abort) => whenRead(() => setImmediate(abort)),
    };
    for (const [stage, options] of Object.entries(stages)) {
      const controller = new AbortController();
      const abort = (): void => {
        controller.abort();
      };
      const load = { threads: 1, signal: controller.signal, ...options(abort) };
      expect([stage, await code(() => Model.load(paths.model, load))]).toEqual([stage, 'ERR_ABORTED']);
    }
  });

  it('rejects with codes', async () => {
    expect(await code(() => Model.load(`${paths.model}-not`))).toBe('ERR_FILE');
    expect(await code(() => Model.load(paths.drafter))).toBe('ERR_CONFIG');
    expect(await code(() => Model.load(paths.model, { drafter: paths.model }))).toBe('ERR_CONFIG');
    expect(await code(() => Model.load(paths.model, { device: 'cpu:nonsense' }))).toBe('ERR_INVALID_ARGUMENT');
    expect(await code(() => Model.load(paths.model, { contextTokens: 1 << 30 }))).toBe('ERR_INVALID_ARGUMENT');
    expect(await code(() => Model.load(paths.model, { signal: AbortSignal.abort() }))).toBe('ERR_ABORTED');
    const error: unknown = await Model.load('/nowhere').catch((e: unknown) => e);
    expect((error as Error).stack).toContain('session.test.ts');
  });

  it('ends all work when disposed of', async () => {
    const other = await Model.load(paths.model, { drafter: paths.drafter, threads: 1 });
    const sessions = await Promise.all([other.createSession(), other.createSession()]);
    const runs = sessions.map((session) => session.generate(PROMPT, { maxTokens: 4000, ignoreEos: true }));
    await turn(2);
    await Promise.all([other.dispose(), other[Symbol.asyncDispose]()]);
    for (const run of runs) expect(await code(() => run.result())).toBe('ERR_DISPOSED');
    expect(await code(() => other.createSession())).toBe('ERR_DISPOSED');
    expect(await code(() => sessions[0].generate(PROMPT))).toBe('ERR_DISPOSED');
    await sessions[0].dispose();
  });
});
