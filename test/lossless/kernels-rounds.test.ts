/**
 * Rounds as graphs, on the CUDA kernels in the emulator and on a device where there is one: any number of requests at
 * once, whose lanes are filled up to buckets, against plain decoding alone; which graphs that takes, and which are
 * forgotten; and that padding which leaves anything behind would be noticed.
 */
import { join } from 'node:path';

import { afterEach, beforeAll, describe, expect, it } from 'vitest';

import { range } from '../kit/arrays.js';
import { temporaryDirectory, type TinyShape, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { type GenerateOptions, type LoadOptions, TestEngine } from '../kit/native-engine.js';
import { Random } from '../kit/random.js';
import { testing } from '../kit/testing.js';
import { describeLevels } from '../native/ops/levels.js';
import { type Case, differences, expectLossless, type Outcome, run } from './compare.js';

/** Absent where the tests were built without the emulator. */
const simt = testing['simt'] as
  { allocatedBytes(): number; graphLaunches(): number; graphCaptures(): number; graphsAlive(): number } | undefined;

const SHAPE: TinyShape = {
  ...{ vocab: 23, hidden: 32, layers: 1, heads: 2, kvHeads: 1, headDim: 16, ffn: 32, maxPositions: 512 },
};
const directory = temporaryDirectory('kernels-rounds');
const model = join(directory, 'model');
const drafter = join(directory, 'drafter');
writeTinyLlama(model, SHAPE, 41);
writeTinyDrafter(drafter, 'gru', SHAPE.vocab, SHAPE.hidden, 42);

/** Lanes of a group are filled up to these. */
const BUCKETS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48];
const MOST = 33;
/** Graphs that an engine keeps at most. */
const MOST_GRAPHS = 64;

const random = new Random(43);
/** Short prompts, greedy and sampled, of lengths that let lanes leave and join all the time. */
const REQUESTS = range(MOST).map((i): Case => {
  const sampling: GenerateOptions = i % 2 === 0 ? {} : { temperature: 0.8, seed: BigInt(i) };
  return {
    name: `request ${i}`,
    ids: [...random.integers(1 + random.integer(0, 3), 0, SHAPE.vocab)],
    options: { maxTokens: 3 + random.integer(0, 4), ...sampling },
  };
});

const engines: TestEngine[] = [];
async function load(options: LoadOptions): Promise<TestEngine> {
  const engine = await TestEngine.load(model, { drafter, contextTokens: 256, kvTokens: 4096, ...options });
  engines.push(engine);
  return engine;
}
afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.close();
});

type Drafting = (i: number) => GenerateOptions;
const PLAIN: Drafting = () => ({});
const ALIKE: Drafting = () => ({ beamWidth: 2, beamLength: 2 });
const MIXED: Drafting = (i) => ({ beamWidth: [0, 1, 3, 5][i % 4] ?? 0, beamLength: [0, 3, 2, 1][i % 4] ?? 0 });

const runAll = (engine: TestEngine, requests: Case[], drafting: Drafting): Promise<Outcome[]> =>
  Promise.all(requests.map((request, i) => run(engine, request, drafting(i))));

async function runEach(engine: TestEngine, requests: Case[], drafting: Drafting): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const [i, request] of requests.entries()) outcomes.push(await run(engine, request, drafting(i)));
  return outcomes;
}

/** What a request drafted, and what became of it: it depends on no other request, but on its hidden state. */
const draftsOf = ({ stats }: Outcome): unknown => {
  const { rounds, draftedNodes, draftedByDepth, acceptedByDepth } = stats;
  return { rounds, draftedNodes, draftedByDepth: [...draftedByDepth], acceptedByDepth: [...acceptedByDepth] };
};

describeLevels('rounds', (level) => {
  /** Every request alone, decoded plainly. */
  let plain: Outcome[];
  beforeAll(async () => {
    const engine = await TestEngine.load(model, { device: level, drafter, contextTokens: 256 });
    plain = await runEach(engine, REQUESTS, PLAIN);
    await engine.close();
  });

  it.each([
    ['decoding plainly', PLAIN],
    ['drafting with one shape', ALIKE],
    ['drafting with four shapes, or not', MIXED],
  ] as const)(
    'of 1 to 33 requests at once, %s, give each what it gets alone',
    { timeout: 180_000 },
    async (_, drafting) => {
      const engine = await load({ device: level });
      const alone = await runEach(engine, REQUESTS, drafting);
      const captures = simt?.graphCaptures() ?? 0;
      for (const count of range(MOST, 1)) {
        const outcomes = await runAll(engine, REQUESTS.slice(0, count), drafting);
        outcomes.forEach((outcome, i) => {
          const what = `${count} at once: request ${i}`;
          expectLossless(plain[i] as Outcome, outcome, what);
          expect(draftsOf(outcome), what).toEqual(draftsOf(alone[i] as Outcome));
        });
      }
      if (level !== 'cuda:host') return;
      const made = (simt?.graphCaptures() ?? 0) - captures;
      expect(made).toBeGreaterThan(5);
      if (drafting === PLAIN) expect(made).toBeLessThanOrEqual(BUCKETS.length);
      expect(simt?.graphsAlive()).toBeLessThanOrEqual(MOST_GRAPHS);
    },
  );

  it('are one launch from the third of a shape on, and the host has time until they end', () => {
    const decode = testing['decode'] as (options: object) => { ids: Int32Array; calls: string[][] };
    const common = { fault: '', model, drafter, ids: Int32Array.of(3, 1, 4), maxTokens: 8, eos: new Int32Array() };
    for (const [beamWidth, beamLength] of [
      [0, 0],
      [2, 1],
    ]) {
      const options = { ...common, beamWidth, beamLength };
      const { ids, calls } = decode({ ...options, device: level });
      const single = ['upload_later', 'download_later', 'meanwhile', 'wait'];
      const recorded = ['begin_capture', 'upload_later', 'download_later', 'end_capture'];
      const launched = ['launch_graph', 'meanwhile', 'wait'];
      // The prompt; then rounds of a shape; and where tokens are drafted, one without drafts at the end.
      const last = beamWidth === 0 ? [] : [single];
      const many = calls.length - 3 - last.length;
      expect(many).toBeGreaterThan(0);
      expect(calls).toEqual([
        ...[single, single, [...recorded, ...launched]],
        ...range(many).map(() => launched),
        ...last,
      ]);
      expect(ids).toHaveLength(8);
      // On the CPU, work has ended when its call returns, and nobody is kept waiting for it.
      const cpu = decode({ ...options, device: 'cpu' });
      expect(cpu.calls.flat()).not.toContain('meanwhile');
    }
  });

  it('of lanes whose rows do not go into the model with padding give the same', async () => {
    // 17 rows each: 30 lanes are all that go into 513 rows, and the bucket of 25 would be 32.
    const engine = await load({ device: level });
    const drafting: Drafting = () => ({ beamWidth: 8, beamLength: 2 });
    for (const count of [24, 25, 30, 31]) {
      const outcomes = await runAll(engine, REQUESTS.slice(0, count), drafting);
      outcomes.forEach((outcome, i) => {
        expectLossless(plain[i] as Outcome, outcome, `${count} at once: request ${i}`);
      });
    }
  });

  describe.runIf(level === 'cuda:host')('with more shapes than graphs', () => {
    const shapes = range(72).map((i) => ({ beamWidth: 1 + (i % 9), beamLength: 1 + Math.floor(i / 9) }));
    /** Long enough for two rounds of a shape, if no draft is accepted; those behind them get shorter. */
    const requestFor = (beamLength: number): Case => ({
      ...{ name: `beams of ${beamLength}`, ids: [3, 1, 4], options: { maxTokens: beamLength + 3 } },
    });

    it('forget the graph that was not used for the longest time, and give the same', { timeout: 180_000 }, async () => {
      const before = simt?.graphsAlive() ?? 0;
      const engine = await load({ device: level });
      const alone = await runEach(engine, range(9).map(requestFor), PLAIN);
      const check = async (shape: (typeof shapes)[number] | undefined): Promise<Outcome> => {
        if (shape === undefined) throw new Error('there are no shapes');
        const outcome = await run(engine, requestFor(shape.beamLength), shape);
        expectLossless(alone[shape.beamLength] as Outcome, outcome, JSON.stringify(shape));
        return outcome;
      };
      const made = (): number => (simt?.graphsAlive() ?? 0) - before;
      for (const shape of shapes) {
        await check(shape);
        expect(made()).toBeLessThanOrEqual(MOST_GRAPHS);
      }
      expect(made()).toBe(MOST_GRAPHS);
      // The last shape has its graph, so nothing is made for it; the first one was forgotten, and is made anew at once.
      const captures = (): number => simt?.graphCaptures() ?? 0;
      let last = captures();
      await check(shapes.at(-1));
      expect(captures()).toBe(last);
      last = captures();
      const launches = simt?.graphLaunches() ?? 0;
      const first = await check(shapes[0]);
      expect(captures()).toBeGreaterThan(last);
      expect((simt?.graphLaunches() ?? 0) - launches).toBe(first.stats.rounds);
      expect(made()).toBe(MOST_GRAPHS);
      await engine.close();
      engines.splice(0);
      expect(simt?.graphsAlive()).toBe(before);
    });
  });

  it.runIf(level === 'cuda:host').each([
    ['cuda:late', false],
    ['cuda:hasty-80', true],
    ['cuda:hasty-95', true],
  ])('whose end is not waited for are noticed: %s', async (device, noticed) => {
    // On late streams a round runs when it is waited for; on hasty ones, that is left out once, long after loading.
    const long: Case = { name: 'long', ids: [3, 1, 4], options: { maxTokens: 120 } };
    const expected = await run(await load({ device: level }), long);
    const engine = await load({ device });
    const found = await run(engine, long).then(
      (outcome) => differences(expected, outcome),
      (error: unknown) => [String(error)],
    );
    expect(found.length > 0).toBe(noticed);
  });

  // native/testing/simt/planted_ops.h. Five lanes are filled up to six.
  describe.runIf(level === 'cuda:host')('with a fault planted in what padding leaves', () => {
    const requests = REQUESTS.slice(0, 5).map((each) => ({ ...each, options: { ...each.options, maxTokens: 12 } }));
    const outcomesOf = async (device: string, drafting: Drafting): Promise<[Outcome[], Outcome[]]> => {
      const engine = await load({ device });
      return [await runEach(engine, requests, drafting), await runAll(engine, requests, drafting)];
    };

    it.each([
      ['cuda:host', 0],
      ['cuda:planted-inert-written', 1],
    ])('a slot that it writes is noticed: %s', async (device, least) => {
      const [alone, together] = await outcomesOf(device, PLAIN);
      const found = together.filter((outcome, i) => differences(alone[i] as Outcome, outcome).length > 0);
      expect(Math.min(found.length, 1)).toBe(least);
    });
    it.each([
      ['cuda:host', 0],
      ['cuda:planted-padding-kept', 1],
    ])('a hidden state that it keeps is noticed: %s', async (device, least) => {
      const [alone, together] = await outcomesOf(device, () => ({ beamWidth: 4, beamLength: 3 }));
      const found = together.filter((outcome, i) => {
        expectLossless(alone[i] as Outcome, outcome, 'drafts change no output');
        return JSON.stringify(draftsOf(outcome)) !== JSON.stringify(draftsOf(alone[i] as Outcome));
      });
      expect(Math.min(found.length, 1)).toBe(least);
    });
  });
});
