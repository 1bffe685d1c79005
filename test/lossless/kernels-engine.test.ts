/**
 * The whole engine with every op on the CUDA kernels, in the emulator, and on a device where there is one: requests
 * that share rounds, drafted, in chunks, forked, rewound, saved and aborted, against plain decoding alone; what it takes
 * of memory; and how it ends when the device fails.
 */
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { bundled, promptIds, trainedDrafters } from '../kit/bundled.js';
import { temporaryDirectory, type TinyShape, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { estimate, type GenerateOptions, type LoadOptions, TestEngine } from '../kit/native-engine.js';
import { Random } from '../kit/random.js';
import { testing } from '../kit/testing.js';
import { describeLevels } from '../native/ops/levels.js';
import { type Case, differences, differingElements, expectLossless, type Outcome, run } from './compare.js';

/** Absent where the tests were built without the emulator. */
const simt = testing['simt'] as
  | { allocatedBytes(): number; mostAllocatedBytes(): number; graphLaunches(): number; graphsAlive(): number }
  | undefined;

const SHAPE: TinyShape = {
  ...{ vocab: 29, hidden: 40, layers: 2, heads: 4, kvHeads: 2, headDim: 24, ffn: 56, maxPositions: 512 },
};
const CELLS = ['sum', 'elman', 'gru'] as const;
const directory = temporaryDirectory('kernels-engine');
const model = join(directory, 'model');
writeTinyLlama(model, SHAPE, 21);
for (const cell of CELLS) writeTinyDrafter(join(directory, cell), cell, SHAPE.vocab, SHAPE.hidden, 22);
writeTinyDrafter(join(directory, 'nan'), 'gru', SHAPE.vocab, SHAPE.hidden, 22, true);

const random = new Random(23);
const ids = (count: number): number[] => [...random.integers(count, 0, SHAPE.vocab)];

interface Request extends Case {
  shape: { beamWidth: number; beamLength: number };
}

/** Prompts, samplings, log-probabilities, lengths and beam shapes mixed, some of them drafting nothing. */
const REQUESTS = Array.from({ length: 33 }, (_, i): Request => {
  const sampling = { temperature: 0.5 + random.uniform(), topP: 0.95, seed: BigInt(i) };
  const [beamWidth, beamLength] = [
    [0, 0],
    [1, 4],
    [8, 2],
    [4, 4],
  ][i % 4] as [number, number];
  return {
    name: `request ${i}`,
    ids: ids(1 + random.integer(0, 40)),
    options: { maxTokens: 2 + random.integer(0, 10), logprobs: (i % 3) - 1, ...(i % 2 === 0 ? {} : sampling) },
    shape: { beamWidth, beamLength },
  };
});

const runAll = (engine: TestEngine, requests: Request[]): Promise<Outcome[]> =>
  Promise.all(requests.map((request) => run(engine, request, request.shape)));

function expectAll(expected: Outcome[], outcomes: Outcome[], what: string): void {
  expect(outcomes.length).toBeLessThanOrEqual(expected.length);
  outcomes.forEach((outcome, i) => {
    expectLossless(expected[i] as Outcome, outcome, `${what}: ${REQUESTS[i]?.name ?? ''}`);
  });
}

const engines: TestEngine[] = [];
async function load(options: LoadOptions): Promise<TestEngine> {
  const engine = await TestEngine.load(model, { contextTokens: 256, ...options });
  engines.push(engine);
  return engine;
}

afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.close();
});

/** What rejects, with its code and message. */
const failure = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => 'it resolved',
    (error: unknown) => (error as Error).message,
  );

describeLevels('the engine', (level) => {
  /** Every request alone, decoded plainly in one piece. */
  let plain: Outcome[];
  beforeAll(async () => {
    const engine = await TestEngine.load(model, { device: level, contextTokens: 256 });
    plain = [];
    for (const request of REQUESTS) plain.push(await run(engine, request));
    await engine.close();
  });

  describe.each(CELLS)('with a drafter of cell %s', (cell) => {
    it('gives each of 1, 2, 5 and 33 requests at once what it gives alone', async () => {
      const engine = await load({ device: level, drafter: join(directory, cell), kvTokens: 4096 });
      let accepted = 0;
      for (const count of [1, 2, 5, 33]) {
        const outcomes = await runAll(engine, REQUESTS.slice(0, count));
        expectAll(plain, outcomes, `${count} at once`);
        for (const { stats } of outcomes) accepted += stats.acceptedByDepth.reduce((sum, n) => sum + n, 0);
      }
      expect(accepted).toBeGreaterThan(5); // by chance: the drafter knows nothing
    });
  });

  it('gives 12 requests what they give alone while their shapes change by chance from round to round', async () => {
    const engine = await load({ device: level, drafter: join(directory, 'gru'), kvTokens: 4096, shapeSeed: 3 });
    const requests = REQUESTS.slice(0, 12);
    const outcomes = await Promise.all(requests.map((request) => run(engine, request, { adaptive: true })));
    expectAll(plain, outcomes, 'shapes by chance');
    const total = (of: (stats: Outcome['stats']) => number): number =>
      outcomes.reduce((sum, { stats }) => sum + of(stats), 0);
    expect(total(({ draftedRounds }) => draftedRounds)).toBeGreaterThan(15);
    expect(total(({ rounds, draftedRounds }) => rounds - draftedRounds)).toBeGreaterThan(5);
  });

  it('gives 66 requests under load what they give alone, whatever comes, waits, goes first or goes away', async () => {
    const options = { prefillChunk: 6, kvTokens: 1024, maxQueuedTokens: 2 ** 20, shapeSeed: 5 };
    const engine = await load({ device: level, drafter: join(directory, 'gru'), ...options });
    let [waited, aborted] = [0, 0];
    const ask = async (request: Request, i: number): Promise<void> => {
      await new Promise((resolve) => setTimeout(resolve, (i % 11) * 40)); // some come while others run
      const shape = i < REQUESTS.length ? { adaptive: true } : request.shape;
      const more: GenerateOptions = { ...shape, priority: (i % 5) - 2 };
      if (i % 6 === 5) {
        const session = await engine.open();
        const work = engine.generate(
          session,
          request.ids,
          { ...request.options, ...more, maxTokens: 60 },
          (_, abort) => {
            abort(-1);
          },
        );
        if ((await work).reason === 'abort') aborted++;
        await engine.closeSession(session);
      }
      const outcome = await run(engine, request, more);
      if (outcome.stats.queuedMs > 20) waited++;
      expectLossless(
        plain[i % REQUESTS.length] as Outcome,
        outcome,
        `${request.name}, ${i < 33 ? 'adaptive' : 'given'}`,
      );
    };
    await Promise.all([...REQUESTS, ...REQUESTS].map(ask));
    expect(aborted).toBeGreaterThan(5);
    expect(waited).toBeGreaterThan(10);
  });

  it.each([false, true])('plans shapes of its own, which change nothing; costs measured: %s', async (measuredCosts) => {
    const engine = await load({ device: level, drafter: join(directory, 'gru'), kvTokens: 4096, measuredCosts });
    const outcomes = await Promise.all(REQUESTS.slice(0, 6).map((request) => run(engine, request, { adaptive: true })));
    expectAll(plain, outcomes, 'planned shapes');
  });

  it.runIf(level === 'cuda:host')('launches rounds that only decode as graphs', async () => {
    const engine = await load({ device: level, drafter: join(directory, 'gru') });
    const request: Case = { name: 'long', ids: ids(12), options: { maxTokens: 40 } };
    const outcomes: Outcome[] = [];
    for (const beamWidth of [0, 3]) {
      const before = simt?.graphLaunches() ?? 0;
      const outcome = await run(engine, request, { beamWidth, beamLength: 2 });
      const launches = (simt?.graphLaunches() ?? 0) - before;
      outcomes.push(outcome);
      // The first round of a shape runs op by op: plain; drafted; and at the end with drafts of one token, then none.
      expect(launches).toBe(outcome.stats.rounds - (beamWidth === 0 ? 1 : 2));
    }
    expectLossless(outcomes[0] as Outcome, outcomes[1] as Outcome, 'graphs');
  });

  it.each([1, 7, 64])('gives the same with prompts in chunks of %i', async (prefillChunk) => {
    const engine = await load({ device: level, drafter: join(directory, 'gru'), prefillChunk });
    expectAll(plain, await runAll(engine, REQUESTS.slice(0, 6)), `chunks of ${prefillChunk}`);
  });

  it('gives the same with a drafter that is NaN', async () => {
    const engine = await load({ device: level, drafter: join(directory, 'nan') });
    expectAll(plain, await runAll(engine, REQUESTS.slice(0, 5)), 'NaN');
  });

  // What a stream is given is done as late as it may be (native/testing/levels.h).
  it.runIf(level === 'cuda:host')('gives the same on streams that are late', async () => {
    const engine = await load({ device: 'cuda:late', drafter: join(directory, 'gru'), prefillChunk: 7 });
    for (const count of [1, 8]) expectAll(plain, await runAll(engine, REQUESTS.slice(0, count)), `${count} late`);
  });

  it('can tell when it does not', async () => {
    const [first, second] = plain;
    if (first === undefined || second === undefined) throw new Error('there are no requests');
    const engine = await load({ device: level, dtype: 'f16' });
    expect(differences(first, second)).not.toEqual([]);
    const other = differences(first, await run(engine, REQUESTS[0] as Request));
    expect(other.join()).toMatch(/KV values differ/);
  });

  // A matmul that splits K by how many rows there are, and the same without (native/testing/simt/planted_ops.h).
  it.runIf(level === 'cuda:host').each([
    ['no-fault-matmul', false],
    ['split-by-rows', true],
  ])('with the kernel "%s" it is noticed: %s', async (fault, noticed) => {
    const engine = await load({ device: `cuda:planted-${fault}`, drafter: join(directory, 'gru') });
    const requests = REQUESTS.slice(0, 5);
    const alone: Outcome[] = [];
    for (const request of requests) alone.push(await run(engine, request));
    const outcomes = await runAll(engine, requests);
    expect(outcomes.some((outcome, i) => differences(alone[i] as Outcome, outcome).length > 0)).toBe(noticed);
  });

  describe('a session', () => {
    const prompt = ids(37);
    const more = ids(9);
    const drafting = { beamWidth: 3, beamLength: 3, maxTokens: 12 };
    const sampled: GenerateOptions = { temperature: 0.9, seed: 4n, maxTokens: 12 };
    const longer: Case = { name: 'longer', ids: [...prompt, ...more], options: sampled };

    let engine: TestEngine;
    beforeAll(async () => {
      const drafter = join(directory, 'elman');
      engine = await TestEngine.load(model, { device: level, drafter, contextTokens: 256, prefillChunk: 16 });
    });
    afterAll(() => engine.close());

    /** A session that holds the prompt. */
    async function prompted(): Promise<number> {
      const session = await engine.open();
      expect(await engine.append(session, prompt)).toMatchObject({ tokens: 37, kvTokens: 37 });
      return session;
    }

    it('reuses its prefix, alone and forked, and the fork changes nothing', async () => {
      const whole = await run(engine, longer);
      const session = await prompted();
      const before = await engine.readKv(session);
      const fork = await engine.fork(session);
      const outcome = await engine.generate(fork, more, { ...sampled, ...drafting });
      expect(outcome.stats.reusedTokens).toBe(37);
      expectLossless(whole, { ...outcome, kv: await engine.readKv(fork) }, 'fork');
      expect(differingElements(await engine.readKv(session), before)).toBe(0);
      const second = await engine.fork(session);
      const both = await Promise.all([
        engine.generate(session, more, sampled),
        engine.generate(second, more, { ...sampled, ...drafting }),
      ]);
      for (const each of both) expect(each.ids).toEqual(whole.ids);
      expectLossless(whole, { ...both[0], kv: await engine.readKv(session) }, 'source');
    });

    it('takes blocks of a session of its key, and of none of another', async () => {
      const whole = await run(engine, longer);
      for (const [key, reused] of [
        ['a', 0],
        ['a', 32],
        ['b', 0],
      ] as const) {
        const other = await engine.open(key);
        const outcome = await engine.generate(other, longer.ids, { ...sampled, ...drafting });
        expect([key, outcome.stats.reusedTokens]).toEqual([key, reused]);
        expectLossless(whole, { ...outcome, kv: await engine.readKv(other) }, key);
        await engine.closeSession(other);
      }
    });

    it('slides when its context is full, drafted as not', async () => {
      const small = await load({ device: level, drafter: join(directory, 'gru'), contextTokens: 40, prefillChunk: 16 });
      const slide: Case = {
        name: '',
        ids: prompt,
        options: { ...sampled, slideKeep: 5, slideTail: 17, maxTokens: 26 },
      };
      const plainly = await run(small, slide);
      const drafted = await run(small, slide, { beamWidth: 3, beamLength: 3 });
      expect(plainly.stats.droppedTokens).toBe(36);
      expectLossless(plainly, drafted, 'drafted');
    });

    it('rewinds', async () => {
      const whole = await run(engine, longer);
      const session = await prompted();
      await engine.generate(session, ids(20), drafting);
      expect(await engine.rewind(session, 37)).toMatchObject({ tokens: 37, kvTokens: 37 });
      const again = await engine.generate(session, more, { ...sampled, ...drafting });
      expect(again.stats.reusedTokens).toBe(37);
      expectLossless(whole, { ...again, kv: await engine.readKv(session) }, 'rewound');
    });

    it('stops in the middle when it is aborted, and goes on as if it had not been', async () => {
      const whole = await run(engine, { ...longer, options: { ...sampled, maxTokens: 30 } });
      const session = await engine.open();
      const options = { ...sampled, ...drafting, maxTokens: 30 };
      const first = await engine.generate(session, longer.ids, options, (soFar, abort) => {
        if (soFar.length >= 8) abort(8);
      });
      expect(first.reason).toBe('stop');
      expect(first.tokens).toBe(longer.ids.length + 8);
      const rest = await engine.generate(session, [], { ...options, maxTokens: 22 });
      expect([...first.ids.slice(0, 8), ...rest.ids]).toEqual(whole.ids);
      expect(differingElements(await engine.readKv(session), whole.kv)).toBe(0);
    });

    it('comes out of a file as it was, written and read beside the rounds of others', async () => {
      const whole = await run(engine, longer);
      const session = await prompted();
      const file = join(directory, `${level.replace(':', '-')}.session`);
      const options = { ...sampled, ...drafting };
      const [beside, saved] = await Promise.all([run(engine, longer, options), engine.save(session, file)]);
      expect(saved).toMatchObject({ tokens: 37, kvTokens: 37 });
      const [besideToo, restored] = await Promise.all([run(engine, longer, options), engine.restore(file)]);
      for (const each of [beside, besideToo]) expectLossless(whole, each, 'beside');
      expect([restored.ids, restored.kvTokens]).toEqual([prompt, 37]);
      expect(differingElements(await engine.readKv(restored.session), await engine.readKv(session))).toBe(0);
      const outcome = await engine.generate(restored.session, more, { ...sampled, ...drafting });
      expect(outcome.stats.reusedTokens).toBe(37);
      expectLossless(whole, { ...outcome, kv: await engine.readKv(restored.session) }, 'restored');
    });

    it('that the CPU has saved brings its tokens, and its KV is computed anew', async () => {
      const whole = await run(engine, longer);
      const cpu = await load({ device: 'cpu', dtype: 'bf16' });
      const saved = await cpu.open();
      await cpu.append(saved, prompt);
      const file = join(directory, `cpu-${level.replace(':', '-')}.session`);
      await cpu.save(saved, file);
      const restored = await engine.restore(file);
      expect([restored.ids, restored.kvTokens]).toEqual([prompt, 0]);
      const outcome = await engine.generate(restored.session, more, { ...sampled, ...drafting });
      expectLossless(whole, { ...outcome, kv: await engine.readKv(restored.session) }, 'from the CPU');
    });
  });

  it.each(['elman', 'gru'] as const)('accepts what a trained drafter of cell %s proposes', async (cell) => {
    const engine = await TestEngine.load(bundled, {
      ...{ device: level, drafter: trainedDrafters[cell], contextTokens: 128, prefillChunk: 9 },
    });
    engines.push(engine);
    const [first = [], second = []] = await promptIds();
    const cases: Case[] = [
      { name: 'greedy', ids: first.slice(0, 14), options: { maxTokens: 7 } },
      { name: 'seeded', ids: second.slice(0, 5), options: { maxTokens: 4, temperature: 0.7, seed: 3n } },
    ];
    const expected = await Promise.all(cases.map((each) => run(engine, each)));
    const drafted = await Promise.all(cases.map((each) => run(engine, each, { beamWidth: 4, beamLength: 4 })));
    let deep = 0;
    cases.forEach(({ name }, i) => {
      expectLossless(expected[i] as Outcome, drafted[i] as Outcome, name);
      deep += drafted[i]?.stats.acceptedByDepth[1] ?? 0;
    });
    expect(deep).toBeGreaterThan(0);
  });

  describe('loading', () => {
    it('makes bf16 of matrices that are stored as f32, and refuses to be asked for f32', async () => {
      const automatic = await load({ device: level });
      const asked = await load({ device: level, dtype: 'bf16' });
      expect(automatic.info).toEqual({ ...asked.info });
      expect(automatic.info).toMatchObject({ dtype: 'bf16', device: 'cuda', threads: 1 });
      expect((await load({ device: level, dtype: 'f16' })).info.dtype).toBe('f16');
      expect(await failure(load({ device: level, dtype: 'f32' }))).toBe(
        `ERR_INVALID_ARGUMENT: device "${level}" has no matrices of dtype "f32"; load with dtype "bf16" or "f16", or with device "cpu"`,
      );
    });

    const options: LoadOptions[] = [
      {},
      { drafter: join(directory, 'gru'), contextTokens: 100, kvTokens: 1000 },
      { drafter: join(directory, 'elman'), prefillChunk: 512, dtype: 'f16', threads: 9 },
      { drafter: join(directory, 'gru'), contextTokens: 64, prefixCacheBytes: 4096, measuredCosts: true },
      { drafter: join(directory, 'sum'), memoryBudgetBytes: 80 * 2 ** 20, contextTokens: 64, measuredCosts: true },
    ];
    it.each(options)('takes as much memory as was estimated: %o', async (each) => {
      const all = { device: level, ...each };
      const before = simt?.allocatedBytes() ?? 0;
      const expected = await estimate(model, all);
      if (level === 'cuda:host') expect(simt?.allocatedBytes()).toBe(before);
      simt?.mostAllocatedBytes();
      const engine = await TestEngine.load(model, all);
      // Nor was there ever more on the way, also while costs were measured.
      if (level === 'cuda:host') expect(simt?.mostAllocatedBytes()).toBe(before + expected.totalBytes);
      expect(engine.info.memory).toEqual(expected);
      const { weightBytes, drafterBytes, kvBytes, workspaceBytes } = expected;
      expect(weightBytes + drafterBytes + kvBytes + workspaceBytes).toBe(expected.totalBytes);
      if (level === 'cuda:host') expect(simt?.allocatedBytes()).toBe(before + expected.totalBytes);
      await engine.close();
      if (level === 'cuda:host') expect(simt?.allocatedBytes()).toBe(before);
    });

    it('keeps to a budget, to the block, and refuses one that is too small', async () => {
      const all = { device: level, drafter: join(directory, 'gru'), contextTokens: 256 };
      const whole = await estimate(model, all);
      const memoryBudgetBytes = whole.totalBytes - Math.floor(whole.kvBytes / 3);
      const expected = await estimate(model, { ...all, memoryBudgetBytes });
      const before = simt?.allocatedBytes() ?? 0;
      const engine = await load({ ...all, memoryBudgetBytes });
      expect(engine.info.memory).toEqual(expected);
      if (level === 'cuda:host') expect(simt?.allocatedBytes()).toBe(before + expected.totalBytes);
      const blockBytes = expected.kvBytes / (engine.info.kvTokens / 16 + Math.ceil(513 / 16));
      expect(memoryBudgetBytes - expected.totalBytes).toBeGreaterThanOrEqual(0);
      expect(memoryBudgetBytes - expected.totalBytes).toBeLessThan(blockBytes);
      expect(engine.info.kvTokens).toBeLessThan(4 * 256);
      const smallest = expected.totalBytes - (engine.info.kvTokens / 16 - 16) * blockBytes;
      const least = await load({ ...all, memoryBudgetBytes: smallest });
      expect([least.info.kvTokens, least.info.memory.totalBytes]).toEqual([256, smallest]);
      expect(await failure(load({ ...all, memoryBudgetBytes: smallest - 1 }))).toMatch(
        /^ERR_OOM: memoryBudgetBytes is /,
      );
      // Drafted, in what is left.
      const request = REQUESTS[2] as Request;
      const outcome = await run(least, { ...request, ids: request.ids.slice(0, 30) }, request.shape);
      expectLossless(await run(least, { ...request, ids: request.ids.slice(0, 30) }), outcome, 'least');
    });

    it('gives the graphs back that costs were measured with', async () => {
      const before = simt?.graphsAlive();
      const launches = simt?.graphLaunches() ?? 0;
      await load({ device: level, drafter: join(directory, 'gru'), measuredCosts: true });
      if (level === 'cuda:host') expect(simt?.graphLaunches()).toBeGreaterThan(launches + 4);
      expect(simt?.graphsAlive()).toBe(before);
    });
  });
});
