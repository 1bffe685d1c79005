/**
 * Losslessness under load: what a request gives does not depend on who shares its rounds, when the others come, in which
 * portions prompts are read, who goes first, who is aborted beside it, or how slowly it is read.
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
const REQUESTS = 60;

function randomCase(random: Random, i: number): Case {
  const length = i % 4 === 0 ? random.integer(200, 600) : random.integer(1, 60);
  return {
    name: `request ${i}`,
    ids: [...random.integers(length, 0, shape.vocab)],
    options: {
      maxTokens: random.integer(1, 60),
      logprobs: i % 5 === 0 ? 2 : -1,
      eos: [random.integer(0, shape.vocab)],
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

/** A request among others: what drafts it, how soon it comes, with which priority, and whether it is read slowly. */
async function among(engine: TestEngine, c: Case, random: Random, drafts: boolean): Promise<Outcome> {
  await later(random.integer(0, 60));
  const shapes = { beamWidth: random.integer(1, 12), beamLength: random.integer(1, 6) };
  const options: GenerateOptions = { ...c.options, ...(drafts ? shapes : {}), priority: random.integer(-10, 11) };
  if (random.integer(0, 3) > 0) return run(engine, { ...c, options });
  const session = await engine.open();
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

describe('60 requests among others give what they give alone', () => {
  const runs = [1, 3, 16, 100, 256, 512].flatMap((prefillChunk) => [true, false].map((drafts) => ({ prefillChunk, drafts }))); // prettier-ignore
  it.each(runs)('prompts in portions of $prefillChunk, drafting $drafts', async ({ prefillChunk, drafts }) => {
    const random = new Random(prefillChunk * 2 + Number(drafts));
    const engine = await TestEngine.load(model, { drafter, prefillChunk, kvTokens: 8192, threads: 2 });
    let shared = 0;
    const watch = setInterval(() => (shared = Math.max(shared, engine.kvUsage().activeRequests)), 5);
    const order = [...random.permutation(REQUESTS)];
    const disturbing = Promise.all(Array.from({ length: 20 }, () => disturb(engine, random)));
    const outcomes = await Promise.all(
      order.map(async (i) => [i, await among(engine, cases[i] as Case, random, drafts)] as const),
    );
    await disturbing;
    clearInterval(watch);
    expect(outcomes.flatMap(([i, outcome]) => differences(alone[i] as Outcome, outcome).map((what) => `${i}: ${what}`))).toEqual([]); // prettier-ignore
    expect(shared).toBeGreaterThan(5); // they did share rounds
    const { freeBlocks, totalBlocks, waitingRequests, activeRequests } = engine.kvUsage();
    expect([freeBlocks, waitingRequests, activeRequests]).toEqual([totalBlocks, 0, 0]);
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
