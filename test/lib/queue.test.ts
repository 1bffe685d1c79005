/** The queue of a model: its bounds, who goes first, deadlines, and generations that are not read. */
import { join } from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import {
  CapacityError,
  Model,
  type RedrafterError,
  type Chunk,
  type Generation,
  type Session,
} from '../../lib/index.js';
import type { NativeEngine } from '../../lib/native.js';
import type { GenerateOptions, LoadOptions } from '../../lib/option-types.js';
import { temporaryDirectory, writeTinyLlama } from '../kit/checkpoint.js';
import { TINY, turn, writeTinyModel, type TinyModel } from './tiny.js';

const ENDLESS = { maxTokens: 3000, ignoreEos: true };

let paths: TinyModel;
const models: Model[] = [];
beforeAll(() => {
  paths = writeTinyModel();
});
afterAll(async () => {
  for (const model of models) await model.dispose();
});

async function load(options: LoadOptions = {}, directory = paths.model): Promise<Model> {
  const model = await Model.load(directory, { threads: 1, device: 'cpu', drafter: paths.drafter, ...options });
  models.push(model);
  return model;
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 2000 && !condition(); i++) await turn(5);
  if (!condition()) throw new Error('it did not happen within ten seconds');
}

/** Asked once: between two questions a request that waits may become active, and be in neither answer. */
function idle(model: Model): boolean {
  const { activeRequests, waitingRequests } = model.queueUsage();
  return activeRequests + waitingRequests === 0;
}

const ids = (count: number, seed = 0): number[] => Array.from({ length: count }, (_, i) => (i * 7 + seed) % 250);

/** A generation of its own session that runs until it is aborted. The session ends with it. */
async function occupy(model: Model, options: GenerateOptions = ENDLESS): Promise<Generation> {
  const { activeRequests } = model.queueUsage();
  const session = await model.createSession();
  const generation = session.generate([1, 2, 3], options);
  if (options.bufferTokens === undefined) void generation.result().then(() => session.dispose());
  await until(() => model.queueUsage().activeRequests > activeRequests);
  return generation;
}

describe('a full queue', () => {
  /** Room for one of the endless generations, and little beside it. */
  const small = { contextTokens: 4096, kvTokens: 3200 };

  it('refuses requests with ERR_QUEUE_FULL at once, and takes them when there is room again', async () => {
    const model = await load({ ...small, maxQueuedRequests: 3 });
    const first = await occupy(model);
    const sessions = await Promise.all(Array.from({ length: 4 }, () => model.createSession()));
    const waiting = sessions
      .slice(0, 3)
      .map((each, i) => each.generate(ids(10, i), { ...ENDLESS, maxTokens: 2500 - i }));
    expect(model.queueUsage()).toMatchObject({ waitingRequests: 3, waitingTokens: 30, maxQueuedRequests: 3 });
    const session = sessions[3] as Session;
    expect(() => session.generate([1, 2, 3])).toThrow(CapacityError);
    expect(() => session.generate([1, 2, 3])).toThrow(expect.objectContaining({ code: 'ERR_QUEUE_FULL' }) as Error);
    await expect(session.append([1, 2, 3])).rejects.toMatchObject({ code: 'ERR_QUEUE_FULL' });
    expect(session.tokens).toBe(0);
    waiting[1]?.abort();
    expect((await waiting[1]?.result())?.tokenIds).toEqual([]);
    await session.append([1, 2, 3]);
    first.abort();
    await until(() => model.queueUsage().waitingRequests === 1);
    for (const each of waiting) each.abort();
    await Promise.all(waiting.map((each) => each.result()));
    expect(model.queueUsage()).toMatchObject({ waitingRequests: 0, waitingTokens: 0 });
  });

  it('counts the tokens that wait, and takes a request of any size when it is empty', async () => {
    const model = await load({ ...small, maxQueuedTokens: 100 });
    const first = await occupy(model);
    const [a, b, c] = [await model.createSession(), await model.createSession(), await model.createSession()];
    const waits = a.generate(ids(90), { ...ENDLESS, maxTokens: 2500 });
    expect(() => b.generate(ids(11), ENDLESS)).toThrow(/90 tokens are waiting, and 11 more are beyond/);
    const fits = b.generate(ids(10), { ...ENDLESS, maxTokens: 2500 });
    for (const each of [waits, fits]) each.abort();
    await Promise.all([waits.result(), fits.result()]);
    await until(() => model.queueUsage().waitingRequests === 0);
    const large = c.generate(ids(500), { maxTokens: 2600 });
    expect(model.queueUsage().waitingTokens).toBe(500);
    for (const each of [first, large]) each.abort();
    expect((await large.result()).tokenIds).toEqual([]);
  });

  it('leaves a session as it was, also where messages would have rewound it', async () => {
    const model = await load({ ...small, maxQueuedRequests: 1 });
    const first = await occupy(model);
    const session = await model.createSession();
    await session.append('[user]hello\n[assistant]something else\n');
    const before = [...session.tokenIds];
    const waits = (await model.createSession()).generate(ids(3), { ...ENDLESS, maxTokens: 2500 });
    const messages = [{ role: 'user', content: 'hello' }, { role: 'assistant', content: 'no' }]; // prettier-ignore
    expect(() => session.generate(messages)).toThrow(expect.objectContaining({ code: 'ERR_QUEUE_FULL' }) as Error);
    expect([...session.tokenIds]).toEqual(before);
    for (const each of [first, waits]) each.abort();
    await Promise.all([first.result(), waits.result()]);
    const { tokenIds } = await session.generate(messages, { maxTokens: 5, ignoreEos: true }).result();
    const fresh = await (await model.createSession()).generate(messages, { maxTokens: 5, ignoreEos: true }).result();
    expect(tokenIds).toEqual(fresh.tokenIds);
  });

  it('is not what a request gets that can never fit: that fails at once, while others run and wait', async () => {
    const model = await load(small);
    const first = await occupy(model);
    const waits = (await model.createSession()).generate(ids(3), { ...ENDLESS, maxTokens: 2500 });
    const session = await model.createSession();
    const tooLarge = session.generate(ids(100), { maxTokens: 3990 });
    await expect(tooLarge.result()).rejects.toMatchObject({ code: 'ERR_KV_FULL' });
    expect(() => session.generate(ids(4096))).toThrow(expect.objectContaining({ code: 'ERR_CONTEXT' }) as Error);
    await session.append(ids(10));
    await expect(session.append(ids(4090))).rejects.toMatchObject({ code: 'ERR_CONTEXT' });
    await expect(session.append('x'.repeat(5000))).rejects.toMatchObject({ code: 'ERR_CONTEXT' });
    expect(session.tokens).toBe(10);
    expect(model.queueUsage()).toMatchObject({ waitingRequests: 1, activeRequests: 1 });
    for (const each of [first, waits]) each.abort();
    await Promise.all([first.result(), waits.result()]);
  });
});

describe('a limit of active requests', () => {
  it('makes others wait although there is room, and lets them in as requests end', async () => {
    const model = await load({ maxActiveRequests: 2 });
    const running = [await occupy(model), await occupy(model)];
    const session = await model.createSession();
    const appended = session.append(ids(10));
    const third = (await model.createSession()).generate([5], { maxTokens: 5, ignoreEos: true });
    await turn(50);
    expect(model.queueUsage()).toMatchObject({ activeRequests: 2, waitingRequests: 2 });
    running[0]?.abort();
    await appended;
    expect((await third.result()).tokenIds).toHaveLength(5);
    running[1]?.abort();
    await until(() => model.queueUsage().activeRequests === 0);
  });
});

describe('turns', () => {
  /** Names of requests in the order in which they are admitted, one after another as there is room for one. */
  async function order(
    model: Model,
    requests: [name: string, options: GenerateOptions, prompt?: number][],
  ): Promise<string> {
    const first = await occupy(model);
    const ended: string[] = [];
    const all = [];
    for (const [name, options, prompt = 3] of requests) {
      const session = await model.createSession();
      const generation = session.generate(ids(prompt), { ignoreEos: true, maxTokens: 2000, ...options });
      const ends = async (): Promise<number> => {
        const { stats } = await generation.result();
        ended.push(name);
        await session.dispose();
        return stats.queuedMs;
      };
      all.push(ends());
    }
    first.abort();
    const waited = await Promise.all(all);
    expect(Math.min(...waited)).toBeGreaterThan(0);
    return ended.join('');
  }

  it('are by priority, then as they came', async () => {
    const model = await load({ contextTokens: 4096, kvTokens: 3200 });
    const low = { priority: -5 };
    expect(await order(model, [['a', low], ['b', {}], ['c', { priority: 5 }], ['d', {}], ['e', { priority: 5 }]])).toBe('cebda'); // prettier-ignore
  });

  it('a request that waits for blocks is passed by small ones, but not forever', async () => {
    const model = await load({ contextTokens: 4096, kvTokens: 3200 });
    const first = await occupy(model, { ignoreEos: true, maxTokens: 1500 });
    const session = await model.createSession();
    const big = session.generate(ids(3), { maxTokens: 3000, ignoreEos: true });
    let passed = 0;
    let admitted = false;
    // Six of them fill the cache, and one comes whenever one ends: there is never room for the big one by chance.
    const stream = async (): Promise<void> => {
      const small = await model.createSession();
      while (!admitted) {
        await small.generate([5], { maxTokens: 600, ignoreEos: true }).result();
        passed++;
        await small.rewind(0);
      }
      await small.dispose();
    };
    const streams = Promise.all(Array.from({ length: 6 }, stream));
    for await (const { tokenIds } of big) if (tokenIds.length > 0) break;
    admitted = true;
    expect(passed).toBeGreaterThan(0);
    expect(passed).toBeLessThan(40);
    await Promise.all([streams, first.result()]);
  });
});

describe('prompts beside decoding', () => {
  it('a long one holds up those that decode by a chunk per round, and a short one by its share', async () => {
    const directory = join(temporaryDirectory('deep'), 'model');
    writeTinyLlama(directory, { ...TINY, maxPositions: 8192 }, 11);
    const model = await load({ drafter: false, contextTokens: 8192, prefillChunk: 64 }, directory);
    const decoding = await occupy(model, { maxTokens: 6000, ignoreEos: true, bufferTokens: 10_000 });
    let rounds = 0;
    const reading = (async () => {
      for await (const chunk of decoding) rounds += chunk.tokenIds.length;
    })();
    await until(() => rounds > 0);
    const session = await model.createSession();
    const began = rounds;
    const long = session.generate(ids(6400), { maxTokens: 1 });
    let longEnded = false;
    const ended = long.result().finally(() => (longEnded = true));
    const short = await (await model.createSession()).generate(ids(30), { maxTokens: 1 }).result();
    expect(longEnded).toBe(false);
    expect(short.tokenIds).toHaveLength(1);
    await ended;
    expect(rounds - began).toBeGreaterThan(90); // 100, less what is not delivered yet
    decoding.abort();
    await reading;
  });
});

const MINUTES = { maxTokens: 50_000, ignoreEos: true };

describe('deadlineMs', () => {
  let model: Model;
  let free: number;
  beforeAll(async () => {
    const directory = join(temporaryDirectory('long'), 'model');
    writeTinyLlama(directory, { ...TINY, maxPositions: 65_536 }, 11);
    model = await load({ contextTokens: 60_000, kvTokens: 60_000 }, directory);
    free = model.kvUsage().freeBlocks;
  });

  it('ends a generation with what there is, and frees the rest', async () => {
    const session = await model.createSession();
    const { finishReason, tokenIds, stats } = await session
      .generate([1, 2, 3], { ...MINUTES, deadlineMs: 300 })
      .result();
    expect(finishReason).toBe('deadline');
    expect(tokenIds.length).toBeGreaterThan(0);
    expect(tokenIds.length).toBeLessThan(50_000);
    expect(session.tokens).toBe(3 + tokenIds.length);
    expect(stats.queuedMs + stats.totalMs).toBeGreaterThanOrEqual(299);
    expect(free - model.kvUsage().freeBlocks).toBe(Math.ceil((2 + tokenIds.length) / 16));
    const { tokenIds: next } = await session.generate([], { maxTokens: 3, ignoreEos: true }).result();
    const whole = await model.createSession();
    const all = await whole.generate([1, 2, 3], { maxTokens: tokenIds.length + 3, ignoreEos: true }).result();
    expect([...tokenIds, ...next]).toEqual(all.tokenIds);
    await Promise.all([session.dispose(), whole.dispose()]);
  });

  it('counts while a request waits: it then has no tokens', async () => {
    const first = await occupy(model, MINUTES);
    const session = await model.createSession();
    const { finishReason, tokenIds, stats } = await session.generate([1, 2], { ...MINUTES, deadlineMs: 300 }).result();
    expect([finishReason, tokenIds, stats.totalMs]).toEqual(['deadline', [], 0]);
    expect(stats.queuedMs).toBeGreaterThanOrEqual(299);
    expect(session.tokens).toBe(2);
    expect(model.queueUsage()).toMatchObject({ waitingRequests: 0, activeRequests: 1 });
    first.abort();
    await first.result();
  });

  it('is passed through iteration, and a generation that ends before hears nothing of it', async () => {
    const session = await model.createSession();
    const chunks: Chunk[] = [];
    const late = session.generate([1, 2, 3], { ...MINUTES, deadlineMs: 300 });
    for await (const chunk of late) chunks.push(chunk);
    const { finishReason, tokenIds } = await late.result();
    expect(finishReason).toBe('deadline');
    expect(chunks.flatMap((chunk) => chunk.tokenIds)).toEqual(tokenIds);
    const soon = await session.generate([1], { maxTokens: 2, ignoreEos: true, deadlineMs: 60_000 }).result();
    expect(soon.finishReason).toBe('length');
  });
});

describe('a generation that is not read', () => {
  let model: Model;
  let session: Session;
  beforeAll(async () => {
    model = await load({ contextTokens: 4096, kvTokens: 3200 });
  });
  beforeEach(async () => {
    session = await model.createSession();
    return async () => {
      await session.dispose();
      await until(() => model.kvUsage().freeBlocks === model.kvUsage().totalBlocks || model.kvUsage().sessions > 0);
    };
  });

  const paused = (): Promise<void> => until(() => model.queueUsage().pausedRequests === 1);

  it('pauses beyond its buffer, and goes on when it is read, with the same ids', async () => {
    const options = { ...ENDLESS, maxTokens: 1000, bufferTokens: 20 };
    const plain = await session.generate([1, 2, 3], options).result();
    await session.rewind(0);
    const generation = session.generate([1, 2, 3], options);
    const got: number[] = [];
    let pauses = 0;
    for await (const { tokenIds } of generation) {
      got.push(...tokenIds);
      if (got.length < 400 || pauses === 3) continue;
      await paused();
      pauses++;
    }
    expect(pauses).toBe(3);
    expect(got).toEqual(plain.tokenIds);
  });

  it('computes no more than its buffer and a round', async () => {
    const generation = session.generate([1, 2, 3], { ...ENDLESS, bufferTokens: 30 });
    const reader = generation[Symbol.asyncIterator]();
    await reader.next();
    await paused();
    await turn(100);
    await paused();
    generation.abort();
    const { tokenIds, finishReason } = await generation.result();
    expect(finishReason).toBe('abort');
    expect(tokenIds.length).toBeGreaterThan(30);
    expect(tokenIds.length).toBeLessThanOrEqual(30 + 9);
    await reader.return?.(); // one that is used no more may be collected, and then generation goes on
  });

  it('does not hold up others', async () => {
    const generation = session.generate([1, 2, 3], { ...ENDLESS, maxTokens: 1000 });
    const reader = generation[Symbol.asyncIterator]();
    await reader.next();
    await paused();
    const other = await model.createSession();
    expect((await other.generate([5], { maxTokens: 50, ignoreEos: true }).result()).tokenIds).toHaveLength(50);
    expect(model.queueUsage()).toMatchObject({ activeRequests: 1, pausedRequests: 1 });
    await other.dispose();
    await reader.return?.();
  });

  it('ends at once when it is left, aborted, out of time or disposed of', async () => {
    const controller = new AbortController();
    const ways: [string, (reader: AsyncIterator<Chunk>) => unknown, string][] = [
      ['return', (reader) => reader.return?.(), 'abort'],
      ['signal', () => { controller.abort(); }, 'ERR_ABORTED'], // prettier-ignore
      ['dispose', () => session.dispose(), 'ERR_DISPOSED'],
      ['deadline', () => undefined, 'deadline'],
    ];
    for (const [name, act, expected] of ways) {
      const more = name === 'deadline' ? { deadlineMs: 1500 } : name === 'signal' ? { signal: controller.signal } : {};
      session = await model.createSession();
      const generation = session.generate([1, 2, 3], { ...ENDLESS, ...more });
      const reader = generation[Symbol.asyncIterator]();
      await reader.next();
      await paused();
      const held = model.kvUsage().freeBlocks;
      await act(reader);
      await until(() => model.queueUsage().activeRequests === 0);
      expect([name, model.kvUsage().freeBlocks > held]).toEqual([name, true]);
      const outcome = generation.result().then(({ finishReason }) => finishReason, (error: unknown) => (error as RedrafterError).code); // prettier-ignore
      expect([name, await outcome]).toEqual([name, expected]);
      await session.dispose();
    }
  });

  it('goes on when somebody asks for the whole of it, or nobody iterates', async () => {
    const options = { ...ENDLESS, maxTokens: 500, bufferTokens: 1 };
    const generation = session.generate([1, 2, 3], options);
    const reader = generation[Symbol.asyncIterator]();
    await reader.next();
    await paused();
    expect((await generation.result()).tokenIds).toHaveLength(500);
    let left = 0;
    for (;;) {
      const { done, value } = await reader.next();
      if (done === true) break;
      left += value.tokenIds.length;
    }
    expect(left).toBeGreaterThan(480);
    const unread = session.generate([], { ...options, maxTokens: 300 });
    await until(() => idle(model));
    expect((await unread.result()).tokenIds).toHaveLength(300);
  });

  it('costs few native calls', async () => {
    const { engine } = (model as unknown as { owner: { engine: { native: NativeEngine } } }).owner;
    const { native } = engine;
    const reads: number[] = [];
    engine.native = new Proxy(native, {
      get(target, key: keyof NativeEngine) {
        if (key !== 'read') return target[key].bind(target) as unknown;
        return (ticket: number, tokens: number) => {
          reads.push(tokens);
          target.read(ticket, tokens);
        };
      },
    });
    let tokens = 0;
    for await (const { tokenIds } of session.generate([1, 2, 3], { ...ENDLESS, maxTokens: 1000 }))
      tokens += tokenIds.length;
    engine.native = native;
    expect(tokens).toBe(1000);
    expect(reads.length).toBeLessThanOrEqual(1000 / 32 + 1);
    expect(reads).toEqual([...reads].sort((a, b) => a - b));
  });
});
