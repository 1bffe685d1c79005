/** Several samples of one prompt: what each gives, what they share, how they end. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Model, RedrafterError, type GenerateManyOptions, type Generation } from '../../lib/index.js';
import { Random } from '../kit/random.js';
import { VOCAB, writeTinyModel } from './tiny.js';

const paths = writeTinyModel();
let model: Model;

beforeAll(async () => {
  model = await Model.load(paths.model, { drafter: paths.drafter, threads: 1, kvTokens: 4096, contextTokens: 1024 });
});

afterAll(() => model.dispose());

const PROMPT = [...new Random(5).integers(160, 0, VOCAB)];
const SAMPLED: GenerateManyOptions = { maxTokens: 24, temperature: 1, topP: 0.95, seed: 7n, ignoreEos: true };

async function code(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    return error instanceof RedrafterError ? error.code : String(error);
  }
  return 'nothing was thrown';
}

const idsOf = (samples: Generation[]): Promise<number[][]> =>
  Promise.all(samples.map(async (sample) => (await sample.result()).tokenIds));

/** What a session of its own gives with this seed. */
async function alone(seed: bigint, options: GenerateManyOptions = {}): Promise<number[]> {
  const session = await model.createSession();
  const single = { ...SAMPLED, ...options, drafting: false, seed };
  delete single.n;
  const { tokenIds } = await session.generate(PROMPT, single).result();
  await session.dispose();
  return tokenIds;
}

const usedBlocks = (): number => model.kvUsage().totalBlocks - model.kvUsage().freeBlocks;

/** Nothing but this session's blocks is in use, and there is no other session. */
async function expectOnly(blocks: number, sessions = 1): Promise<void> {
  await model.createSession().then((session) => session.dispose()); // usage is as of the last round
  expect([usedBlocks(), model.kvUsage().sessions]).toEqual([blocks, sessions]);
}

describe('generateMany', () => {
  it.each<[string, GenerateManyOptions]>([
    ['chains', {}],
    ['wide trees', { beamWidth: 16, beamLength: 3 }],
    ['penalties', { beamWidth: 8, beamLength: 2, repetitionPenalty: 1.2, presencePenalty: 0.5, minTokens: 3 }],
  ])('gives what single generations with the seeds seed + i give: %s', async (_, options) => {
    const session = await model.createSession();
    const samples = await session.generateMany(PROMPT, { ...SAMPLED, ...options, n: 5 });
    expect(samples.map((sample) => sample.seed)).toEqual([7n, 8n, 9n, 10n, 11n]);
    const ids = await idsOf(samples);
    expect(new Set(ids.map(String)).size).toBe(5);
    for (const [i, own] of ids.entries()) expect(own).toEqual(await alone(7n + BigInt(i), options));
    await session.dispose();
  });

  it('reads the prompt once, shares its blocks, and gives back those of a sample when it ends', async () => {
    const session = await model.createSession();
    const [n, maxTokens] = [8, 16];
    const samples = await session.generateMany(PROMPT, { ...SAMPLED, n, maxTokens, drafting: false });
    const firsts = samples.map((sample) => sample[Symbol.asyncIterator]().next());
    await Promise.all(firsts);
    // 160 tokens are 10 blocks. A sample runs the last of them again, and so has a copy of the tenth, and room for its own.
    expect(model.kvUsage().blockTokens).toBe(16);
    expect(usedBlocks()).toBeGreaterThan(10);
    expect(usedBlocks()).toBeLessThanOrEqual(10 + n * 3);
    for (const sample of samples) {
      const { stats } = await sample.result();
      expect(stats).toMatchObject({ promptTokens: 160, reusedTokens: 159, tokens: maxTokens });
    }
    await expectOnly(10);
    expect(session).toMatchObject({ tokens: 160, stats: { generations: n, tokens: n * maxTokens } });
    expect([...session.tokenIds]).toEqual(PROMPT);
    const { seed = 0n, ...single } = SAMPLED;
    expect((await session.generate([], { ...single, seed }).result()).tokenIds).toEqual(await alone(7n));
    await session.dispose();
    await expectOnly(0, 0);
  });

  it('continues what the session holds, and chat messages', async () => {
    const session = await model.createSession();
    const messages = [{ role: 'user', content: 'hello there' }];
    const [first = [], second = []] = await idsOf(await session.generateMany(messages, { ...SAMPLED, n: 2 }));
    const again = await idsOf(await session.generateMany([], { ...SAMPLED, n: 2 }));
    expect(again).toEqual([first, second]);
    const greedy = await idsOf(await session.generateMany('more', { n: 3, maxTokens: 5, ignoreEos: true }));
    expect(new Set(greedy.map(String)).size).toBe(1);
    await session.dispose();
  });

  it('streams samples side by side; leaving one ends that one', async () => {
    const session = await model.createSession();
    const samples = await session.generateMany(PROMPT, { ...SAMPLED, n: 3, maxTokens: 200 });
    const seen = await Promise.all(
      samples.map(async (sample, i) => {
        const ids: number[] = [];
        for await (const chunk of sample) {
          ids.push(...chunk.tokenIds);
          if (i === 1 && ids.length >= 5) break;
        }
        return ids;
      }),
    );
    const results = await Promise.all(samples.map((sample) => sample.result()));
    expect(results.map((result) => result.finishReason)).toEqual(['length', 'abort', 'length']);
    expect(results.map((result) => result.tokenIds)).toEqual(seen);
    expect(seen[0]).toEqual(await alone(7n, { maxTokens: 200 }));
    await expectOnly(10);
    await session.dispose();
  });

  it('lets each sample pause by itself', async () => {
    const session = await model.createSession();
    const options = { ...SAMPLED, n: 3, maxTokens: 120, bufferTokens: 6 };
    const samples = await session.generateMany(PROMPT, options);
    const [slow, ...others] = samples as [Generation, ...Generation[]];
    const chunks = slow[Symbol.asyncIterator]();
    const seen: number[] = [];
    const read = async (): Promise<boolean> => {
      const { value } = await chunks.next();
      seen.push(...(value?.tokenIds ?? []));
      return value !== undefined;
    };
    await read();
    const ids = await idsOf(others);
    expect(model.queueUsage()).toMatchObject({ activeRequests: 1, pausedRequests: 1 });
    while (await read());
    expect(seen).toEqual((await slow.result()).tokenIds);
    for (const [i, own] of [seen, ...ids].entries())
      expect(own).toEqual(await alone(7n + BigInt(i), { maxTokens: 120 }));
    await expectOnly(10);
    await session.dispose();
  });

  it('takes a place in the queue for each sample, or none', async () => {
    const small = { drafter: paths.drafter, threads: 1, contextTokens: 512, kvTokens: 512, maxQueuedRequests: 4 };
    await using few = await Model.load(paths.model, small);
    const session = await few.createSession();
    const messages = [{ role: 'user', content: 'hello there' }];
    await idsOf(await session.generateMany(messages, { n: 2, maxTokens: 2 }));
    await session.append([5, 6]);
    const before = [...session.tokenIds];
    // Generations that pause hold nearly all of the cache, so that whatever is long waits.
    const long = { maxTokens: 480, bufferTokens: 1, ignoreEos: true, drafting: false };
    const holders = [await few.createSession(), await few.createSession()].map((each) => each.generate([1], long));
    const readers = holders.map((holder) => holder[Symbol.asyncIterator]());
    await Promise.all(readers.map((reader) => reader.next()));
    const sessions = await Promise.all(Array.from({ length: 4 }, () => few.createSession()));
    const controller = new AbortController();
    const { signal } = controller;
    const waiting = sessions.map((each) => code(() => each.append(Array<number>(200).fill(1), { signal })));
    // The messages are what the session begins with, so what follows them goes if they are read; they are not.
    expect(await code(() => session.generateMany(messages, { n: 2 }))).toBe('ERR_QUEUE_FULL');
    expect([...session.tokenIds]).toEqual(before);
    controller.abort();
    expect(await Promise.all(waiting)).toEqual(Array<string>(4).fill('ERR_ABORTED'));
    // Now they are, but there is no place for five.
    expect(await code(() => session.generateMany([7], { n: 5, maxTokens: 200 }))).toBe('ERR_QUEUE_FULL');
    expect([...session.tokenIds]).toEqual(before);
    await few.createSession().then((each) => each.dispose()); // usage is as of the last round
    expect(few.queueUsage()).toMatchObject({ waitingRequests: 0, activeRequests: 2 });
    expect(few.kvUsage().sessions).toBe(7);
    for (const holder of holders) holder.abort();
    const ids = await idsOf(await session.generateMany([7], { n: 4, maxTokens: 3 }));
    expect(ids.map((own) => own.length)).toEqual([3, 3, 3, 3]);
    expect([...session.tokenIds]).toEqual([...before, 7]);
  });

  it('goes on when the session is used otherwise or disposed of', async () => {
    const session = await model.createSession();
    const samples = await session.generateMany(PROMPT, { ...SAMPLED, n: 2, maxTokens: 60 });
    await session.rewind(3);
    await session.dispose();
    expect(await idsOf(samples)).toEqual([await alone(7n, { maxTokens: 60 }), await alone(8n, { maxTokens: 60 })]);
    await expectOnly(0, 0);
  });

  it('waits for blocks when not all samples fit at a time', async () => {
    const session = await model.createSession();
    const options = { ...SAMPLED, n: 12, maxTokens: 800, drafting: false };
    const samples = await session.generateMany(PROMPT.slice(0, 20), options);
    const ids = await idsOf(samples);
    expect(ids.map((own) => own.length)).toEqual(Array<number>(12).fill(800));
    await session.dispose();
    await expectOnly(0, 0);
  });

  it('ends by its signal, while reading the prompt and later', async () => {
    const session = await model.createSession();
    await session.append([1, 2, 3]);
    const early = new AbortController();
    const reading = session.generateMany(PROMPT, { ...SAMPLED, n: 4, signal: early.signal });
    early.abort();
    expect(await code(() => reading)).toBe('ERR_ABORTED');
    expect([...session.tokenIds]).toEqual([1, 2, 3]);
    const late = new AbortController();
    const samples = await session.generateMany(PROMPT, { ...SAMPLED, n: 4, maxTokens: 700, signal: late.signal });
    late.abort();
    expect(await Promise.all(samples.map((sample) => code(() => sample.result())))).toEqual(
      Array<string>(4).fill('ERR_ABORTED'),
    );
    await expectOnly(Math.ceil(163 / 16));
    await session.dispose();
  });

  it('refuses what generate refuses, and leaves the session as it was', async () => {
    const session = await model.createSession();
    await session.append([1, 2, 3]);
    const refused = (input: number[], options: GenerateManyOptions): Promise<string> =>
      code(() => session.generateMany(input, options));
    expect(await refused([1], { n: 0 })).toBe('ERR_INVALID_ARGUMENT');
    expect(await refused([VOCAB], { n: 2 })).toBe('ERR_INVALID_ARGUMENT');
    expect(await refused(Array<number>(1022).fill(1), { n: 2 })).toBe('ERR_CONTEXT');
    const first = session.generateMany([4], { n: 2, maxTokens: 2 });
    expect(await refused([4], { n: 2 })).toBe('ERR_BUSY');
    await idsOf(await first);
    expect([...session.tokenIds]).toEqual([1, 2, 3, 4]);
    await session.dispose();
    expect(await refused([4], { n: 2 })).toBe('ERR_DISPOSED');
    await expectOnly(0, 0);
  });

  it('rejects when there is no room for the prompt', async () => {
    const holders = await Promise.all(Array.from({ length: 5 }, () => model.createSession()));
    await Promise.all(holders.map((holder, i) => holder.append(Array<number>(i < 4 ? 1000 : 500).fill(9))));
    const session = await model.createSession();
    expect(await code(() => session.generateMany(PROMPT, { n: 2 }))).toBe('ERR_KV_FULL');
    expect(session.tokens).toBe(0);
    await Promise.all([...holders, session].map((each) => each.dispose()));
  });
});
