/**
 * Prefixes that come from the cache give what computing them gives: ids, log-probabilities and KV bytes, drafted and
 * plain. They come from sessions of the same key alone. Idle ones are never in anybody's way.
 */
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { temporaryDirectory, type TinyShape, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { type GenerateOptions, type LoadOptions, TestEngine } from '../kit/native-engine.js';
import { Random } from '../kit/random.js';
import { differingElements, expectLossless, type Outcome, run } from './compare.js';

const SHAPE: TinyShape = {
  ...{ vocab: 61, hidden: 48, layers: 2, heads: 4, kvHeads: 2, headDim: 12, ffn: 64, maxPositions: 512 },
};
const directory = temporaryDirectory('prefix');
const model = join(directory, 'model');
const drafter = join(directory, 'drafter');
writeTinyLlama(model, SHAPE, 31);
writeTinyDrafter(drafter, 'gru', SHAPE.vocab, SHAPE.hidden, 32);

const random = new Random(33);
const ids = (count: number): number[] => [...random.integers(count, 0, SHAPE.vocab)];
const SAMPLINGS: GenerateOptions[] = [{}, { temperature: 0.9, topP: 0.95, seed: 5n }];
const DRAFTING: GenerateOptions[] = [{}, { beamWidth: 3, beamLength: 4 }];

let plain: TestEngine; // without an index
const engines: TestEngine[] = [];
async function load(options: LoadOptions = {}): Promise<TestEngine> {
  const engine = await TestEngine.load(model, {
    drafter,
    threads: 1,
    contextTokens: 256,
    prefillChunk: 24,
    ...options,
  });
  engines.push(engine);
  return engine;
}

beforeAll(async () => {
  plain = await TestEngine.load(model, { drafter, threads: 1, contextTokens: 256, prefixCacheBytes: 0 });
});
afterAll(() => plain.close());
afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.close();
});

async function generate(
  engine: TestEngine,
  session: number,
  input: readonly number[],
  options: GenerateOptions,
): Promise<Outcome> {
  const generated = await engine.generate(session, input, options);
  return { ...generated, kv: await engine.readKv(session) };
}

const cases = SAMPLINGS.flatMap((sampling) => DRAFTING.map((drafting) => ({ sampling, drafting })));

describe.each(cases)('with %o', ({ sampling, drafting }) => {
  const options: GenerateOptions = { ...sampling, maxTokens: 20, logprobs: 2 };
  const drafted = { ...options, ...drafting };

  it('a session gets back what it held before', async () => {
    const engine = await load();
    const [start, a, b] = [ids(37), ids(45), ids(30)];
    const session = await engine.open();
    await engine.append(session, start);
    const expected = [a, b, a].map((more) => ({ name: '', ids: [...start, ...more], options }));
    const reused: number[] = [];
    for (const [i, more] of [a, b, a].entries()) {
      await engine.rewind(session, 37);
      const outcome = await generate(engine, session, more, drafted);
      expectLossless(await run(plain, expected[i] ?? { name: '', ids: [], options }), outcome, `turn ${i}`);
      reused.push(outcome.stats.reusedTokens);
    }
    // The third time: all full blocks of the 82 tokens, of which the last is computed anew.
    expect(reused).toEqual([37, 37, 80]);
  });

  it('sessions of one key share, also with one that was disposed of, and nobody else does', async () => {
    const engine = await load();
    const prompt = ids(70);
    const expected = await run(plain, { name: '', ids: prompt, options });
    const first = await engine.open('a');
    expectLossless(expected, await generate(engine, first, prompt, drafted), 'first');
    await engine.closeSession(first);
    const held = engine.kvUsage();
    expect(held.prefixBlocks).toBe(Math.floor((70 + 19) / 16));
    expect(held.totalBlocks - held.freeBlocks - held.prefixBlocks).toBe(0);
    for (const [key, reused] of [
      ['a', 64],
      ['b', 0],
      ['', 0],
      ['A', 0],
      ['a', 64],
    ] as const) {
      const session = await engine.open(key);
      const outcome = await generate(engine, session, prompt, drafted);
      expect([key, outcome.stats.reusedTokens]).toEqual([key, reused]);
      expectLossless(expected, outcome, key);
      await engine.closeSession(session);
    }
    // The same beginning, then something else.
    const other = [...prompt.slice(0, 50), ...ids(30)];
    const session = await engine.open('a');
    const outcome = await generate(engine, session, other, drafted);
    expect(outcome.stats.reusedTokens).toBe(48);
    expectLossless(await run(plain, { name: '', ids: other, options }), outcome, 'other');
  });

  it('of several at once the later ones have it from the first, while that is running', async () => {
    const engine = await load({ prefillChunk: 512 });
    const prompt = ids(100);
    const expected = await run(plain, { name: '', ids: prompt, options: { ...options, maxTokens: 100 } });
    const first = await engine.open('a');
    let rest: Promise<Outcome[]> | undefined;
    const outcome = await engine.generate(first, prompt, { ...drafted, maxTokens: 100 }, () => {
      rest ??= Promise.all(
        Array.from({ length: 5 }, async () => {
          const session = await engine.open('a');
          return generate(engine, session, prompt, { ...drafted, maxTokens: 100 });
        }),
      );
    });
    expectLossless(expected, { ...outcome, kv: await engine.readKv(first) }, 'first');
    for (const each of (await rest) ?? []) {
      expectLossless(expected, each, 'later');
      expect(each.stats.reusedTokens).toBe(96);
    }
    // What they hold in common counts once.
    const { totalBlocks, freeBlocks, prefixBlocks } = engine.kvUsage();
    expect([totalBlocks - freeBlocks - prefixBlocks, engine.kvUsage(first).sharedBlocks]).toEqual([12 + 6, 12]);
  });
});

describe('idle prefixes', () => {
  const room = (engine: TestEngine): number[] => {
    const { totalBlocks, freeBlocks, prefixBlocks } = engine.kvUsage();
    return [totalBlocks - freeBlocks - prefixBlocks, prefixBlocks, freeBlocks];
  };

  it('go, least recently used and last block first, when a request needs the room', async () => {
    const engine = await load({ contextTokens: 128, kvTokens: 16 });
    const { totalBlocks } = engine.kvUsage();
    const prompts = [ids(64), ids(64), ids(64)];
    for (const prompt of prompts) {
      const session = await engine.open('a');
      await engine.append(session, prompt);
      await engine.closeSession(session);
    }
    expect(room(engine)).toEqual([0, 12, totalBlocks - 12]);
    const again = await engine.open('a'); // the first becomes the most recently used
    expect((await engine.generate(again, prompts[0] ?? [], { maxTokens: 1 })).stats.reusedTokens).toBe(48);
    // Sessions that take all but one free block, then some of them what the index holds.
    const takers: number[] = [];
    for (const free = room(engine); (free[2] ?? 0) > 2; free.splice(0, 3, ...room(engine))) {
      const session = await engine.open();
      await engine.append(session, ids(16 * Math.min(8, (free[2] ?? 0) - 1)));
      takers.push(session);
    }
    const [, idle, free = 0] = room(engine);
    expect(idle).toBe(8);
    const last = await engine.open();
    await engine.append(last, ids(16 * (free + 3)));
    expect(room(engine)[1]).toBe(5);
    expect(engine.kvUsage().evictedBlocks).toBe(3);
    const reused: number[] = [];
    await engine.closeSession(last);
    for (const prompt of prompts) {
      const session = await engine.open('a');
      reused.push((await engine.generate(session, [...prompt, 1], { maxTokens: 1 })).stats.reusedTokens);
      await engine.closeSession(session);
    }
    expect(reused).toEqual([64, 16, 64]);
  });

  it('never make a request fail that would not have: a block that it goes on in is taken if nothing else is there', async () => {
    const engine = await load({ contextTokens: 512, kvTokens: 512 });
    const session = await engine.open();
    expect(engine.kvUsage().totalBlocks).toBe(65);
    const long = ids(500);
    await engine.append(session, long);
    await engine.append(await engine.open(), ids(512));
    expect(room(engine)).toEqual([64, 0, 1]);
    await engine.rewind(session, 40); // in the middle of a block that the index holds as well
    expect(room(engine)).toEqual([35, 28, 2]);
    // 33 blocks in all, so 30 more, and 30 are to be had: none to copy the block that 40 lies in.
    const options = { maxTokens: 16 * 32 - 41 };
    const outcome = await generate(engine, session, [7], options);
    expect(engine.kvUsage().evictedBlocks).toBe(28);
    const fresh = await load({ contextTokens: 512, prefixCacheBytes: 0 });
    expectLossless(await run(fresh, { name: '', ids: [...long.slice(0, 40), 7], options }), outcome, '');
  });

  it('are at most as many as were allowed', async () => {
    const { bytesPerBlock } = plain.kvUsage();
    const engine = await load({ prefixCacheBytes: 3 * bytesPerBlock });
    const session = await engine.open('a');
    await engine.append(session, ids(160));
    expect(room(engine).slice(0, 2)).toEqual([10, 0]);
    await engine.closeSession(session);
    expect(room(engine).slice(0, 2)).toEqual([0, 3]);
    expect(engine.kvUsage().evictedBlocks).toBe(7);
  });

  it('are forgotten when asked to, by key or all', async () => {
    const engine = await load();
    for (const key of ['a', 'b']) {
      const session = await engine.open(key);
      await engine.append(session, ids(64));
      await engine.closeSession(session);
    }
    const own = await engine.open();
    await engine.append(own, ids(64));
    await engine.rewind(own, 0);
    expect(room(engine)[1]).toBe(12);
    await engine.clearPrefixes('a');
    expect(room(engine)[1]).toBe(8);
    await engine.clearPrefixes('c');
    expect(room(engine)[1]).toBe(8);
    await engine.clearPrefixes();
    expect(room(engine).slice(0, 2)).toEqual([0, 0]);
    expect(engine.kvUsage().evictedBlocks).toBe(0);
  });
});

it('a session without a key takes its prefixes with it', async () => {
  const engine = await load();
  const session = await engine.open();
  await engine.append(session, ids(64));
  await engine.rewind(session, 10);
  expect(engine.kvUsage().prefixBlocks).toBe(3);
  await engine.closeSession(session);
  expect(engine.kvUsage().freeBlocks).toBe(engine.kvUsage().totalBlocks);
});

it('what comes from a file is not offered to others', async () => {
  const engine = await load();
  const prompt = ids(64);
  const session = await engine.open('a');
  await engine.append(session, prompt);
  const file = join(directory, 'a.session');
  await engine.save(session, file);
  await engine.closeSession(session);
  await engine.clearPrefixes();
  const restored = await engine.restore(file);
  await engine.append(restored.session, ids(20));
  const other = await engine.open('a');
  expect((await engine.generate(other, prompt, { maxTokens: 1 })).stats.reusedTokens).toBe(0);
});

it('blocks of other tokens would be noticed', async () => {
  const [a, b] = [
    await run(plain, { name: '', ids: ids(32), options: {} }),
    await run(plain, { name: '', ids: ids(32), options: {} }),
  ];
  expect(differingElements(a.kv, b.kv)).toBeGreaterThan(0);
});
