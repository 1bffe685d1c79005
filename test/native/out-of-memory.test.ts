/**
 * Every allocation of a load, failing one after another: on the emulated device and on the CPU (native/testing/levels.h).
 * And two models on one device, gone in any order.
 */
import { join } from 'node:path';

import { beforeAll, describe, expect, it } from 'vitest';

import { temporaryDirectory, type TinyShape, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { HashMatcher } from '../kit/masks.js';
import { type EngineError, type LoadOptions, TestEngine } from '../kit/native-engine.js';
import { testing } from '../kit/testing.js';
import { type Case, expectLossless, type Outcome, run } from '../lossless/compare.js';

const simt = testing['simt'] as { allocatedBytes(): number; hostBytes(): number; freedEarly(): number } | undefined;
const failingCpuMemory = testing['failingCpuMemory'] as () => number;

const SHAPE: TinyShape = {
  ...{ vocab: 29, hidden: 32, layers: 1, heads: 2, kvHeads: 1, headDim: 16, ffn: 48, maxPositions: 512 },
};
const directory = temporaryDirectory('out-of-memory');
const model = join(directory, 'model');
const drafter = join(directory, 'drafter');
const otherModel = join(directory, 'other');
writeTinyLlama(model, SHAPE, 51);
writeTinyDrafter(drafter, 'gru', SHAPE.vocab, SHAPE.hidden, 52);
writeTinyLlama(otherModel, { ...SHAPE, vocab: 40, hidden: 48, layers: 2 }, 53);

const OPTIONS: LoadOptions = { drafter, contextTokens: 64, prefillChunk: 8, threads: 1 };
const REQUEST: Case = { name: 'request', ids: [3, 1, 4, 1, 5], options: { maxTokens: 6 } };

/** Bytes and allocations of either backend that were not given back. */
const held = (): (number | undefined)[] => [
  ...[simt?.allocatedBytes(), simt?.hostBytes(), simt?.freedEarly(), failingCpuMemory()],
];

/**
 * Loads with the first call failing, then the second, until a load makes fewer calls and succeeds. Gives how many failed.
 * Each must be ERR_OOM and leave nothing, and whoever loads next is not concerned.
 */
async function exhaust(device: string, op: string, next: string): Promise<number> {
  const before = held();
  for (let n = 1; ; n++) {
    let engine: TestEngine;
    try {
      engine = await TestEngine.load(model, { ...OPTIONS, device: `${device}:failing-${op}-${n}` });
    } catch (error) {
      const { code, message } = error as EngineError;
      expect([code, message]).toEqual(['ERR_OOM', expect.stringMatching(/cannot allocate/)]);
      expect(held(), `after failure ${n}`).toEqual(before);
      continue;
    }
    const session = await engine.open();
    expect(
      (await engine.generate(session, REQUEST.ids, { beamWidth: 2, beamLength: 2, maxTokens: 6 })).ids,
    ).toHaveLength(6);
    // Only here does a loaded model allocate again: that call fails alone.
    if (op === 'allocate') await expect(engine.readKv(session)).rejects.toMatchObject({ code: 'ERR_OOM' });
    if (op === 'open_stream')
      await expect(engine.save(session, join(directory, 'x'))).rejects.toMatchObject({ code: 'ERR_OOM' });
    expect((await engine.readKv(session)).length).toBeGreaterThan(0);
    await engine.close();
    expect(held()).toEqual(before);
    const another = await TestEngine.load(model, { ...OPTIONS, device: next });
    expect((await run(another, REQUEST)).ids).toHaveLength(6);
    await another.close();
    expect(held()).toEqual(before);
    return n - 1;
  }
}

describe.each([
  ['cuda', 'cuda:host', simt !== undefined],
  ['cpu', 'cpu', true],
])('without memory on %s', (device, next, can) => {
  // Eleven tensors of the model in 8 allocations, 6 of the drafter, 3 workspaces, cache, hidden states, batch and more.
  it.runIf(can)('any allocation that fails ends the load with ERR_OOM, and nothing is left of it', async () => {
    expect(await exhaust(device, 'allocate', next)).toBeGreaterThan(18);
  });

  it.runIf(can)('so does any of memory that is copied from and to', async () => {
    // Two buffers for the model and two for the drafter; the batch, the results and the log-probabilities of a round.
    expect(await exhaust(device, 'allocate_host', next)).toBe(7);
  });

  it.runIf(can && device === 'cuda')('so does a stream that cannot be opened', async () => {
    expect(await exhaust(device, 'open_stream', next)).toBe(1);
  });

  it.runIf(can)(
    'room for masks that cannot be had fails the first request with a grammar, and not the next',
    async () => {
      const before = held();
      // Masks of the round, the beams on the host, masks of beams.
      for (const n of [8, 9, 10]) {
        const engine = await TestEngine.load(model, { ...OPTIONS, device: `${device}:failing-allocate_host-${n}` });
        const matchers = [1, 2].map((matcher): [number, HashMatcher] => [
          matcher,
          new HashMatcher(SHAPE.vocab, matcher),
        ]);
        const stop = engine.provideMasks(new Map(matchers));
        const ask = (matcher: number): Promise<Outcome> =>
          run(engine, REQUEST, { matcher, beamWidth: 2, beamLength: 2 });
        await expect(ask(1)).rejects.toMatchObject({ code: 'ERR_OOM' });
        expect((await ask(2)).ids).toHaveLength(6);
        stop();
        await engine.close();
        expect(held()).toEqual(before);
      }
    },
  );
});

describe.skipIf(simt === undefined).each(['cuda:host', 'cuda:late'])('two models on %s', (device) => {
  const cases: Case[] = [
    { name: 'long', ids: [1, 2, 3, 4, 5, 6, 7, 8, 9], options: { maxTokens: 14 } },
    { name: 'seeded', ids: [7, 7], options: { maxTokens: 10, temperature: 0.8, seed: 5n } },
    { name: 'short', ids: [21], options: { maxTokens: 4 } },
  ];
  const loadFirst = (): Promise<TestEngine> => TestEngine.load(model, { ...OPTIONS, device });
  const loadSecond = (): Promise<TestEngine> =>
    TestEngine.load(otherModel, { contextTokens: 64, prefillChunk: 8, device });
  const runAll = (engine: TestEngine): Promise<Outcome[]> =>
    Promise.all(
      cases.map((each) => run(engine, each, engine.info.drafter === null ? {} : { beamWidth: 3, beamLength: 3 })),
    );
  let alone: [Outcome[], Outcome[]];
  beforeAll(async () => {
    const first = await loadFirst();
    const ofFirst = await runAll(first);
    await first.close();
    const second = await loadSecond();
    alone = [ofFirst, await runAll(second)];
    await second.close();
  });

  it.each([
    ['the first', 0],
    ['the second', 1],
  ])('run sessions at the same time as if alone, and %s may go before the other', async (_, goes) => {
    const before = held();
    const engines = await Promise.all([loadFirst(), loadSecond()]);
    const outcomes = await Promise.all(engines.map(runAll));
    outcomes.forEach((each, model) => {
      each.forEach((outcome, i) => {
        expectLossless(alone[model]?.[i] as Outcome, outcome, `model ${model}, request ${i}`);
      });
    });
    const [gone, stays] = goes === 0 ? engines : [engines[1], engines[0]];
    await gone.close();
    expect(simt?.allocatedBytes()).toBe((before[0] ?? 0) + stays.info.memory.totalBytes);
    const again = await runAll(stays);
    again.forEach((outcome, i) => {
      expectLossless(alone[1 - goes]?.[i] as Outcome, outcome, `again, request ${i}`);
    });
    await stays.close();
    expect(held()).toEqual(before);
  });

  it('may go in the midst of their work, in any order, and it fails with ERR_DISPOSED', async () => {
    const before = held();
    for (const reverse of [false, true]) {
      const engines = await Promise.all([loadFirst(), loadSecond()]);
      const codes: string[] = [];
      const sessions = await Promise.all(engines.flatMap((engine) => [engine.open(), engine.open(), engine.open()]));
      const ended = sessions.map((session, i) =>
        engines[i < 3 ? 0 : 1]
          .generate(session, [1, 2, 3], { maxTokens: 40 })
          .catch((error: unknown) => codes.push((error as EngineError).code)),
      );
      await Promise.all((reverse ? [...engines].reverse() : engines).map((engine) => engine.close()));
      await Promise.all(ended);
      expect(codes).toEqual(new Array(6).fill('ERR_DISPOSED'));
      expect(held()).toEqual(before);
    }
  });
});
