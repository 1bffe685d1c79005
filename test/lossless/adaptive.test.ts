/**
 * Shapes that are chosen anew for each round never change the output: as the planner chooses them from what it measures,
 * and by chance, which goes where no planner would.
 */
import { join } from 'node:path';

import { afterEach, describe, expect, it } from 'vitest';

import { bundled, promptIds, trainedDrafters } from '../kit/bundled.js';
import { temporaryDirectory, type TinyShape, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { type GenerateOptions, type LoadOptions, TestEngine } from '../kit/native-engine.js';
import { Random } from '../kit/random.js';
import { type Case, expectLossless, type Outcome, run } from './compare.js';

const scratch = temporaryDirectory('adaptive');
const SHAPE: TinyShape = { vocab: 37, hidden: 24, layers: 2, heads: 3, kvHeads: 1, headDim: 8, ffn: 40, maxPositions: 512 }; // prettier-ignore
writeTinyLlama(join(scratch, 'tiny'), SHAPE, 11);
writeTinyDrafter(join(scratch, 'tiny-gru'), 'gru', SHAPE.vocab, SHAPE.hidden, 12);
writeTinyDrafter(join(scratch, 'random'), 'gru', 2048, 256, 7);
writeTinyDrafter(join(scratch, 'nan'), 'gru', 2048, 256, 7, true);

const ADAPTIVE: GenerateOptions = { adaptive: true };

const engines: TestEngine[] = [];
async function load(model: string, options: LoadOptions): Promise<TestEngine> {
  const engine = await TestEngine.load(model, options);
  engines.push(engine);
  return engine;
}
afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.close();
});

/** Greedy and seeded, with and without log-probabilities; lengths up to `most` tokens. */
function options(i: number, most: number): GenerateOptions {
  const seeded = { temperature: 0.4 + 0.2 * (i % 4), topP: 0.95, seed: BigInt(i) };
  return { maxTokens: 1 + ((most / 2 + i * 37) % most), logprobs: (i % 3) - 1, ...(i % 2 === 0 ? {} : seeded) };
}

interface Ran {
  drafted: number;
  plain: number;
  accepted: number;
}

/** Cases one by one without drafts, then all together with them. */
async function compare(engine: TestEngine, cases: Case[], what: string): Promise<Ran> {
  const alone: Outcome[] = [];
  for (const c of cases) alone.push(await run(engine, c));
  const together = await Promise.all(cases.map((c) => run(engine, c, ADAPTIVE)));
  const ran = { drafted: 0, plain: 0, accepted: 0 };
  together.forEach((outcome, i) => {
    expectLossless(alone[i] ?? outcome, outcome, `${what}, ${cases[i]?.name ?? ''}`);
    const { rounds, draftedRounds, acceptedByDepth } = outcome.stats;
    ran.drafted += draftedRounds;
    ran.plain += rounds - draftedRounds;
    ran.accepted += acceptedByDepth.reduce((sum, count) => sum + count, 0);
  });
  return ran;
}

async function bundledCases(count: number, most: number): Promise<Case[]> {
  const ids = await promptIds();
  return Array.from({ length: count }, (_, i) => ({
    name: `prompt ${i}`,
    ids: (ids[(i * 5) % ids.length] ?? []).slice(0, 40 + 7 * i),
    options: options(i, most),
  }));
}

describe('as the planner chooses', () => {
  it.each(Object.entries(trainedDrafters))('with the trained %s drafter, 1, 3 and 12 requests', async (_, drafter) => {
    // What is measured on a busy machine may say that drafting does not pay; made-up costs say that it does.
    for (const flatCosts of [false, true]) {
      const engine = await load(bundled, { drafter, flatCosts });
      for (const count of [1, 3, 12]) {
        const { drafted, accepted } = await compare(engine, await bundledCases(count, 150), `${count} requests`);
        if (flatCosts) expect(Math.min(drafted, accepted)).toBeGreaterThan(10);
      }
    }
  });
  it('with a drafter that knows nothing: nearly all rounds are plain', async () => {
    const engine = await load(bundled, { drafter: join(scratch, 'random'), flatCosts: true });
    const { drafted, plain } = await compare(engine, await bundledCases(8, 200), 'random drafter');
    expect(drafted).toBeGreaterThan(0);
    expect(drafted / (drafted + plain)).toBeLessThan(0.25);
  });
  it('with a drafter of NaN, which drafts nothing', async () => {
    const engine = await load(bundled, { drafter: join(scratch, 'nan') });
    const { drafted, accepted } = await compare(engine, await bundledCases(4, 100), 'drafter of NaN');
    expect([drafted, accepted]).toEqual([0, 0]);
  });
  it('without a drafter', async () => {
    const engine = await load(bundled, {});
    expect((await compare(engine, await bundledCases(3, 60), 'no drafter')).drafted).toBe(0);
  });
  it('beside requests whose shape is given, and prompts that are read in chunks', async () => {
    const engine = await load(bundled, { drafter: trainedDrafters.gru, prefillChunk: 7, kvTokens: 16384 });
    const cases = await bundledCases(9, 80);
    const alone: Outcome[] = [];
    for (const c of cases) alone.push(await run(engine, c));
    const shapes: GenerateOptions[] = [ADAPTIVE, { beamWidth: 3, beamLength: 3 }, {}];
    const together = await Promise.all(cases.map((c, i) => run(engine, c, shapes[i % 3])));
    together.forEach((outcome, i) => {
      expectLossless(alone[i] ?? outcome, outcome, `request ${i}`);
    });
  });
});

describe('with contexts that slide', () => {
  it.each([undefined, 7, 8])(
    'tiny model, 12 requests at once, shapes as planned or by chance: %s',
    async (shapeSeed) => {
      const context = 64;
      const engine = await load(join(scratch, 'tiny'), {
        ...{ drafter: join(scratch, 'tiny-gru'), contextTokens: context, kvTokens: 2048, prefillChunk: 11 },
        ...(shapeSeed === undefined ? { flatCosts: true } : { shapeSeed }),
      });
      const random = new Random(90 + (shapeSeed ?? 0));
      const cases = Array.from({ length: 12 }, (_, i): Case => {
        const slideKeep = [0, 1, 16, 37][i % 4] ?? 0;
        return {
          name: `request ${i}, keeping ${slideKeep}`,
          ids: Array.from(random.integers(1 + random.integer(0, 50), 0, SHAPE.vocab)),
          options: { ...options(i, 90), maxTokens: 150, slideKeep, slideTail: Math.floor((context - slideKeep) / 2) },
        };
      });
      const { drafted, plain } = await compare(engine, cases, 'sliding');
      expect(drafted).toBeGreaterThan(shapeSeed === undefined ? 0 : 100);
      expect(plain).toBeGreaterThan(100);
    },
  );
});

describe('with prefixes that are shared', () => {
  it.each([undefined, 9])('bundled model, shapes as planned or by chance: %s', async (shapeSeed) => {
    const own = shapeSeed === undefined ? { flatCosts: true } : { shapeSeed };
    const engine = await load(bundled, { drafter: trainedDrafters.gru, kvTokens: 8192, ...own });
    const [first, second] = await bundledCases(2, 60);
    const begin = [...(first?.ids ?? []), ...(second?.ids ?? [])];
    const cases = Array.from({ length: 8 }, (_, i): Case => {
      const ids = [...begin.slice(0, 33 + 5 * i), ...begin.slice(i, i + 9)];
      return { name: `prefix ${i}`, ids, options: { ...options(i, 60), maxTokens: 40 + i } };
    });
    const alone: Outcome[] = [];
    for (const c of cases) alone.push(await run(engine, c)); // shares with nobody
    let [reused, accepted] = [0, 0];
    for (const pass of ['first', 'again']) {
      const shared = async ({ ids, options: each }: Case): Promise<Outcome> => {
        const session = await engine.open('all of them');
        const generated = await engine.generate(session, ids, { ...each, ...ADAPTIVE });
        const kv = await engine.readKv(session);
        await engine.closeSession(session);
        return { ...generated, kv };
      };
      const together = await Promise.all(cases.map(shared));
      together.forEach((outcome, i) => {
        expectLossless(alone[i] ?? outcome, outcome, `${pass}, ${cases[i]?.name ?? ''}`);
        accepted += outcome.stats.acceptedByDepth.reduce((sum, count) => sum + count, 0);
        if (pass === 'again') reused += outcome.stats.reusedTokens;
      });
    }
    expect(reused).toBeGreaterThanOrEqual(8 * 32);
    expect(accepted).toBeGreaterThan(20);
  });
});

describe('by chance', () => {
  it.each([1, 2, 3, 4])('tiny model, 20 requests at once, seed %d', async (shapeSeed) => {
    const options_ = {
      drafter: join(scratch, 'tiny-gru'),
      shapeSeed,
      contextTokens: 256,
      kvTokens: 8192,
      prefillChunk: 5,
    };
    const engine = await load(join(scratch, 'tiny'), options_);
    const random = new Random(shapeSeed);
    const cases = Array.from({ length: 20 }, (_, i) => ({
      name: `request ${i}`,
      ids: Array.from(random.integers(1 + random.integer(0, 50), 0, SHAPE.vocab)),
      options: options(i, 90),
    }));
    const { drafted, plain, accepted } = await compare(engine, cases, 'by chance');
    expect(Math.min(drafted, plain)).toBeGreaterThan(100);
    expect(accepted).toBeGreaterThan(3); // by chance: the drafter knows nothing
  });
  it.each([5, 6])('bundled model, 10 requests at once, seed %d', async (shapeSeed) => {
    const engine = await load(bundled, { drafter: trainedDrafters.gru, shapeSeed });
    const { drafted, plain, accepted } = await compare(engine, await bundledCases(10, 120), 'by chance');
    expect(Math.min(drafted, plain, accepted)).toBeGreaterThan(20);
  });
});
