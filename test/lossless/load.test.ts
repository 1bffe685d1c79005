/**
 * Losslessness under load: what a request gives does not depend on who shares its rounds, when the others come, in which
 * portions prompts are read, whether their beginnings were read for somebody else, who goes first, who is aborted beside
 * it, how slowly it is read, or what drafts it.
 */
import { join } from 'node:path';

import { beforeAll, describe, expect, it } from 'vitest';

import { temporaryDirectory, type TinyShape, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { type GenerateOptions, TestEngine } from '../kit/native-engine.js';
import { Random } from '../kit/random.js';
import { type Case, differences, type Outcome, run } from './compare.js';

const directory = temporaryDirectory('load');
const shape: TinyShape = { vocab: 200, hidden: 64, layers: 3, heads: 8, kvHeads: 2, headDim: 24, ffn: 112, maxPositions: 1024 }; // prettier-ignore
const [model, drafter] = [join(directory, 'model'), join(directory, 'drafter')];
const REQUESTS = 200;
const KEY = 'beginnings';
const beginnings = [90, 160, 333].map((length, i) => [...new Random(i).integers(length, 0, shape.vocab)]);

function randomCase(random: Random, i: number): Case {
  const length = i % 8 === 0 ? random.integer(200, 500) : random.integer(1, 60);
  const beginning = i % 3 === 0 ? (beginnings[random.integer(0, beginnings.length)] as number[]) : [];
  return {
    name: `request ${i}`,
    ids: [...beginning, ...random.integers(length, 0, shape.vocab)],
    options: {
      maxTokens: random.integer(1, 60),
      logprobs: i % 5 === 0 ? 2 : -1,
      eos: [random.integer(0, shape.vocab)],
      ...(i % 7 === 0 ? { repetitionPenalty: 1.3, frequencyPenalty: 0.4, minTokens: 5 } : {}),
      ...(i % 2 === 0 ? {} : { temperature: 0.5 + random.uniform(), topP: 0.95, seed: BigInt(i) }),
    },
  };
}

const cases = Array.from({ length: REQUESTS }, (_, i) => randomCase(new Random(100 + i), i));
let alone: Outcome[];

beforeAll(async () => {
  writeTinyLlama(model, shape, 11);
  writeTinyDrafter(drafter, 'gru', shape.vocab, shape.hidden, 12);
  const engine = await TestEngine.load(model, { threads: 1 });
  alone = [];
  for (const c of cases) alone.push(await run(engine, c));
  await engine.close();
});

const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A request that comes, is in the way, and goes before its end: aborted, late, or with its session. */
async function disturb(engine: TestEngine, random: Random): Promise<void> {
  await later(random.integer(0, 100));
  const session = await engine.open();
  const ids = random.integers(random.integer(1, 400), 0, shape.vocab);
  const way = random.integer(0, 3);
  const after = random.integer(1, 20);
  const options = { maxTokens: 300, priority: random.integer(-10, 11), ...(way === 0 ? { deadlineMs: after } : {}) };
  const ended = engine.generate(session, [...ids], { ...options, beamWidth: 3, beamLength: 3 }, (soFar, abort) => {
    if (way === 1 && soFar.length > after) abort(-1);
  });
  if (way === 2) await later(after);
  else await ended;
  await engine.closeSession(session);
}

type Drafting = 'adaptive' | 'fixed' | 'off';

function draftingOptions(drafting: Drafting, random: Random): GenerateOptions {
  if (drafting === 'adaptive') return { adaptive: true };
  return drafting === 'off' ? {} : { beamWidth: random.integer(1, 12), beamLength: random.integer(1, 6) };
}

/** A request among others: what drafts it, how soon it comes, with which priority, and whether it is read slowly. */
async function among(engine: TestEngine, c: Case, random: Random, drafting: Drafting): Promise<Outcome> {
  await later(random.integer(0, 60));
  const priority = random.integer(-10, 11);
  const options: GenerateOptions = { ...c.options, ...draftingOptions(drafting, random), priority };
  const session = await engine.open(KEY);
  if (random.integer(0, 3) > 0) {
    const generated = await engine.generate(session, c.ids, options);
    const kv = await engine.readKv(session);
    await engine.closeSession(session);
    return { ...generated, kv };
  }
  const slow = { ...options, bufferTokens: random.integer(1, 8) };
  const generated = await engine.generate(session, c.ids, slow, (soFar, _, read) => {
    const tokens = soFar.length;
    read(tokens - 1);
    setTimeout(
      () => {
        read(tokens);
      },
      random.integer(0, 10),
    );
  });
  const kv = await engine.readKv(session);
  await engine.closeSession(session);
  return { ...generated, kv };
}

/** What the outcomes have that they do not have alone. */
const different = (outcomes: (readonly [number, Outcome])[]): string[] =>
  outcomes.flatMap(([i, outcome]) => differences(alone[i] as Outcome, outcome).map((what) => `${i}: ${what}`));

function expectIdle(engine: TestEngine): void {
  const { freeBlocks, prefixBlocks, totalBlocks, waitingRequests, activeRequests } = engine.kvUsage();
  expect([freeBlocks + prefixBlocks, waitingRequests, activeRequests]).toEqual([totalBlocks, 0, 0]);
}

describe('200 requests among others give what they give alone', () => {
  const runs = [1, 3, 16, 100, 256, 512].flatMap((prefillChunk, i) =>
    (['adaptive', 'fixed', 'off'] as const).map((drafting, j) => ({
      prefillChunk,
      drafting,
      reuse: (i + j) % 2 === 0,
    })),
  );
  it.each(runs)(
    'prompts in portions of $prefillChunk, drafting $drafting, reuse of prefixes $reuse',
    async ({ prefillChunk, drafting, reuse }) => {
      const random = new Random(prefillChunk * 2 + drafting.length);
      const prefixCacheBytes = reuse ? -1 : 0;
      const options = { drafter, prefillChunk, kvTokens: 8192, maxQueuedTokens: 2 ** 20, prefixCacheBytes, threads: 2 };
      // As planned, and in every other run by chance.
      const engine = await TestEngine.load(model, { ...options, ...(reuse ? { shapeSeed: prefillChunk } : {}) });
      let shared = 0;
      const watch = setInterval(() => (shared = Math.max(shared, engine.kvUsage().activeRequests)), 5);
      const order = [...random.permutation(REQUESTS)];
      const disturbing = Promise.all(Array.from({ length: 20 }, () => disturb(engine, random)));
      const outcomes = await Promise.all(
        order.map(async (i) => [i, await among(engine, cases[i] as Case, random, drafting)] as const),
      );
      await disturbing;
      clearInterval(watch);
      expect(different(outcomes)).toEqual([]);
      expect(shared).toBeGreaterThan(5); // they did share rounds
      const reused = outcomes.reduce((sum, [, { stats }]) => sum + stats.reusedTokens, 0);
      if (reuse)
        expect(reused).toBeGreaterThan(1000); // of about 13000; who comes when decides: 4500 to 11500 were seen
      else expect(reused).toBe(0);
      expectIdle(engine);
      await engine.close();
    },
  );

  it('in batches of 1 to 33', async () => {
    const engine = await TestEngine.load(model, { drafter, kvTokens: 16384, threads: 2 });
    const random = new Random(7);
    let next = 0;
    for (let batch = 1; batch <= 33; batch++) {
      const drafting = (['adaptive', 'fixed', 'off'] as const)[batch % 3] as Drafting;
      const members = Array.from({ length: batch }, () => next++ % REQUESTS);
      const outcomes = await Promise.all(
        members.map(async (i) => {
          const options = draftingOptions(drafting, random);
          return [i, await run(engine, cases[i] as Case, options)] as const;
        }),
      );
      expect(different(outcomes), `${batch} at once`).toEqual([]);
    }
    expect(next).toBeGreaterThan(2 * REQUESTS);
    expectIdle(engine);
    await engine.close();
  });

  it('which are many tokens', () => {
    const tokens = alone.reduce((sum, { ids }) => sum + ids.length, 0);
    expect(tokens).toBeGreaterThan(1000);
  });

  it('and a mix-up would be seen', () => {
    for (let i = 1; i < REQUESTS; i++)
      expect(differences(alone[i - 1] as Outcome, alone[i] as Outcome)).not.toEqual([]);
  });
});
