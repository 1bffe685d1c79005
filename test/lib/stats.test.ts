/** The figures of generations, sessions and models: what must hold of them whatever the clock says. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Model, type DecodeStats, type GenerationResult, type TotalStats } from '../../lib/index.js';
import { StatsTotal } from '../../lib/stats.js';
import { bundled, trainedDrafters } from '../kit/bundled.js';
import { writeTinyModel } from './tiny.js';

const paths = writeTinyModel();
let trained: Model;
let tiny: Model;

beforeAll(async () => {
  [trained, tiny] = await Promise.all([
    Model.load(bundled, { drafter: trainedDrafters.gru, threads: 1 }),
    Model.load(paths.model, { drafter: paths.drafter, threads: 1 }),
  ]);
});

afterAll(async () => {
  await Promise.all([trained.dispose(), tiny.dispose()]);
});

/** Counts that follow from each other. */
function expectConsistent({ stats, tokenIds }: GenerationResult, depth: number): void {
  expect(stats.tokens).toBe(tokenIds.length);
  const accepted = stats.acceptedByDepth.reduce((a, b) => a + b, 0);
  // Every round gives its accepted tokens and one more.
  expect(accepted + stats.rounds).toBe(stats.tokens - 1);
  expect(stats.draftedByDepth).toHaveLength(depth);
  expect(stats.acceptanceByDepth).toHaveLength(depth);
  let deeper = stats.rounds;
  stats.draftedByDepth.forEach((drafted, d) => {
    expect(drafted).toBeLessThanOrEqual(deeper);
    expect(stats.acceptedByDepth[d]).toBeLessThanOrEqual(drafted);
    expect(stats.acceptanceByDepth[d]).toBe(drafted === 0 ? 0 : (stats.acceptedByDepth[d] ?? NaN) / drafted);
    deeper = drafted;
  });
}

const TIMES = ['prefillMs', 'draftMs', 'verifyMs', 'hostMs', 'totalMs', 'timeToFirstTokenMs'] as const;

function expectTimes(stats: DecodeStats): void {
  for (const time of TIMES) expect(stats[time], time).toBeGreaterThanOrEqual(0);
  // Alone on its engine, a request's parts are intervals of its total that do not overlap.
  const parts = stats.prefillMs + stats.draftMs + stats.verifyMs + stats.hostMs;
  expect(parts).toBeLessThanOrEqual(stats.totalMs + 1e-3);
  expect(parts).toBeGreaterThan(0.5 * stats.totalMs);
  expect(stats.timeToFirstTokenMs).toBeGreaterThanOrEqual(stats.prefillMs);
}

describe('of a generation', () => {
  it('are consistent with a trained drafter, a random one and none', async () => {
    for (const [model, shape, depth] of [
      [trained, { beamWidth: 4, beamLength: 5 }, 5],
      [trained, {}, -1],
      [trained, { beamLength: 3 }, 3],
      [tiny, { beamWidth: 2, beamLength: 3 }, 3],
      [trained, { drafting: false }, 0],
    ] as const) {
      const session = await model.createSession();
      const result = await session.generate([1, 2, 3], { ...shape, maxTokens: 90, ignoreEos: true }).result();
      // Shapes that are chosen go as deep as they were.
      expectConsistent(result, depth < 0 ? result.stats.draftedByDepth.length : depth);
      if (depth === 0) expect(result.stats.draftedRounds).toBe(0);
      if (depth > 0) expect(result.stats.draftedRounds).toBe(result.stats.draftedByDepth[0]);
      expectTimes(result.stats);
      if (model === trained && depth >= 0) expect(result.stats.tokensPerStep > 1.2).toBe(depth > 0);
      await session.dispose();
    }
  });

  it('count no depth that the token limit leaves out', async () => {
    const session = await trained.createSession();
    const { stats } = await session.generate([1, 2, 3], { maxTokens: 3, beamLength: 4, ignoreEos: true }).result();
    expect(stats.draftedByDepth.slice(1)).toEqual([0, 0, 0]);
    await session.dispose();
  });
});

describe('after a stop string', () => {
  it('tokens that are cut off count in the rounds that made them', async () => {
    const session = await trained.createSession();
    const { stats, tokenIds, finishReason } = await session
      .generate('interface Point {\n', { stop: '\n', maxTokens: 200, ignoreEos: true })
      .result();
    expect(finishReason).toBe('stop');
    expect(stats.tokens).toBe(tokenIds.length);
    expect(stats.tokens).toBeLessThan(40);
    if (stats.rounds > 0) expect(stats.tokensPerStep).toBeGreaterThanOrEqual(1);
    await session.dispose();
  });
});

describe('of sessions and models', () => {
  it('are the sums over their generations, those that were aborted included', async () => {
    const before = trained.stats;
    const sessions = [await trained.createSession(), await trained.createSession()] as const;
    expect(sessions[0].stats).toMatchObject({ generations: 0, tokens: 0, tokensPerStep: 0, timeToFirstTokenMs: 0 });
    const results: GenerationResult[] = [];
    for (const session of [sessions[0], sessions[0], sessions[1]]) {
      results.push(await session.generate([5, 6], { maxTokens: 40, beamLength: results.length + 2 }).result());
    }
    const run = sessions[1].generate([7], { maxTokens: 2000, ignoreEos: true });
    for await (const chunk of run) if (chunk.tokenIds.length > 0) break;
    results.push(await run.result());
    const controller = new AbortController();
    const signalled = sessions[1].generate([7], { maxTokens: 2000, ignoreEos: true, signal: controller.signal });
    const first = await signalled[Symbol.asyncIterator]().next();
    controller.abort();
    await expect(signalled.result()).rejects.toMatchObject({ code: 'ERR_ABORTED' });

    const sum = (key: 'tokens' | 'rounds' | 'promptTokens' | 'draftedRounds' | 'draftedNodes'): number =>
      results.reduce((total, { stats }) => total + stats[key], 0);
    const mine: [TotalStats, TotalStats] = [sessions[0].stats, sessions[1].stats];
    expect(mine[0].generations + mine[1].generations).toBe(5);
    expect(trained.stats.generations - before.generations).toBe(5);
    for (const key of ['rounds', 'promptTokens', 'draftedRounds', 'draftedNodes', 'tokens'] as const) {
      expect(mine[0][key] + mine[1][key]).toBe(trained.stats[key] - before[key]);
      // The one that its signal ended has no result to compare with, but its work is counted.
      expect(mine[0][key] + mine[1][key]).toBeGreaterThanOrEqual(sum(key));
    }
    expect(mine[1].tokens).toBeGreaterThanOrEqual(first.value?.tokenIds.length ?? NaN);
    expect(mine[0].draftedByDepth).toHaveLength(3);
    expect(mine[0].timeToFirstTokenMs).toBeCloseTo(
      ((results[0]?.stats.timeToFirstTokenMs ?? NaN) + (results[1]?.stats.timeToFirstTokenMs ?? NaN)) / 2,
      6,
    );
    expect((await sessions[0].fork()).stats.generations).toBe(0);
  });

  it('leave out what has not begun', () => {
    const total = new StatsTotal();
    const none = {
      promptTokens: 3,
      reusedTokens: 0,
      tokens: 0,
      droppedTokens: 0,
      rounds: 0,
      decodedTokens: 0,
      draftedRounds: 0,
      draftedNodes: 0,
      firstTokenMs: 0,
    };
    const times = { queuedMs: 2, prefillMs: 0, draftMs: 0, verifyMs: 0, hostMs: 0, totalMs: 1 };
    total.add({ ...none, ...times, draftedByDepth: [0], acceptedByDepth: [0] });
    total.add({
      ...none,
      ...times,
      tokens: 7,
      rounds: 2,
      decodedTokens: 6,
      firstTokenMs: 8,
      draftedByDepth: [2],
      acceptedByDepth: [1],
    });
    // Its loop was left before it was read: no token is kept, but the first one took its time.
    total.add({ ...none, ...times, firstTokenMs: 4, draftedByDepth: [0], acceptedByDepth: [0] });
    const { generations, tokens, tokensPerStep, timeToFirstTokenMs, acceptanceByDepth, queuedMs } = total.snapshot();
    expect(queuedMs).toBe(6);
    expect([generations, tokens, tokensPerStep, timeToFirstTokenMs, acceptanceByDepth]).toEqual([3, 7, 3, 6, [0.5]]);
  });
});
