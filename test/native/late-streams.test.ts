/**
 * The engine on streams that do everything as late as CUDA may do it (`cuda:late` in native/testing/levels.h): what the
 * host changes, reads or frees before it has waited for the stream would be wrong. Loading above all, which reads the next
 * slice of the weights while the one before is copied.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { beforeAll, describe, expect, it } from 'vitest';

import { readTensors, temporaryDirectory, type TinyShape, writeSafetensors, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js'; // prettier-ignore
import { type EngineError, type LoadOptions, TestEngine } from '../kit/native-engine.js';
import { testing } from '../kit/testing.js';
import { type Case, differences, differingElements, expectLossless, type Outcome, run } from '../lossless/compare.js';

const simt = testing['simt'] as { freedEarly(): number; allocatedBytes(): number; hostBytes(): number } | undefined;

const SHAPE: TinyShape = {
  ...{ vocab: 29, hidden: 40, layers: 2, heads: 4, kvHeads: 2, headDim: 24, ffn: 56, maxPositions: 512 },
};
const directory = temporaryDirectory('late-streams');
const model = join(directory, 'model');
const drafter = join(directory, 'drafter');
writeTinyLlama(model, SHAPE, 41);
writeTinyDrafter(drafter, 'gru', SHAPE.vocab, SHAPE.hidden, 42);

const load = (device: string, options: LoadOptions = {}): Promise<TestEngine> =>
  TestEngine.load(model, { device, drafter, contextTokens: 256, prefillChunk: 8, ...options });

const prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4];
const DRAFTED = { beamWidth: 3, beamLength: 3 };
const CASES: Case[] = [
  { name: 'greedy', ids: prompt, options: { maxTokens: 12, logprobs: 3 } },
  { name: 'seeded', ids: prompt.slice(0, 3), options: { maxTokens: 9, temperature: 0.9, seed: 7n } },
  { name: 'short', ids: [11], options: { maxTokens: 15, temperature: 1.1, topP: 0.9, seed: 8n, logprobs: 0 } },
];

describe.skipIf(simt === undefined)('on late streams', () => {
  /** Each case alone and plain, where streams do everything at once. */
  let expected: Outcome[];
  beforeAll(async () => {
    const engine = await load('cuda:host');
    expected = [];
    for (const each of CASES) expected.push(await run(engine, each));
    await engine.close();
  });

  it('requests at once, drafted and plain, give what they give alone on others', async () => {
    const before = simt?.freedEarly();
    const engine = await load('cuda:late');
    for (const drafting of [DRAFTED, {}, DRAFTED]) {
      const outcomes = await Promise.all(CASES.map((each) => run(engine, each, drafting)));
      outcomes.forEach((outcome, i) => {
        expectLossless(expected[i] as Outcome, outcome, CASES[i]?.name ?? '');
      });
    }
    await engine.close();
    expect(simt?.freedEarly()).toBe(before);
  });

  it('sessions are saved, restored, forked and rewound beside the rounds of others', async () => {
    const engine = await load('cuda:late');
    const [greedy, seeded] = CASES as [Case, Case];
    const [whole, other] = expected as [Outcome, Outcome];
    const session = await engine.open();
    await engine.append(session, prompt);
    const kv = await engine.readKv(session);
    const file = join(directory, 'late.session');
    const beside = (): Promise<Outcome> => run(engine, seeded, DRAFTED);
    const [, fork, first] = await Promise.all([engine.save(session, file), engine.fork(session), beside()]);
    const [restored, second] = await Promise.all([engine.restore(file), beside()]);
    for (const each of [first, second]) expectLossless(other, each, 'beside');
    expect(restored.kvTokens).toBe(prompt.length);
    expect(differingElements(await engine.readKv(restored.session), kv)).toBe(0);
    await engine.rewind(session, 5);
    await engine.append(session, prompt.slice(5));
    for (const each of [fork, restored.session, session]) {
      const outcome = await engine.generate(each, [], { ...greedy.options, ...DRAFTED });
      expectLossless(whole, { ...outcome, kv: await engine.readKv(each) }, `session ${each}`);
    }
    await engine.close();
  });

  it('tensors of several slices are loaded, the last of which is not full', async () => {
    const large = join(directory, 'large');
    writeTinyLlama(large, { ...SHAPE, vocab: 27_000, hidden: 48, layers: 1 }, 43);
    const each: Case = { name: 'large', ids: [5, 26_999, 22_000, 12], options: { maxTokens: 3 } };
    const outcomes: Outcome[] = [];
    for (const device of ['cuda:host', 'cuda:late']) {
      const engine = await TestEngine.load(large, { device, contextTokens: 64, kvTokens: 64 });
      outcomes.push(await run(engine, each));
      await engine.close();
    }
    expectLossless(outcomes[0] as Outcome, outcomes[1] as Outcome, 'large');
  });

  /** What differs from what is right, or how it failed, when the n-th wait does not wait. */
  async function hasty(n: number): Promise<string[]> {
    try {
      const engine = await load(`cuda:hasty-${n}`);
      try {
        return differences(expected[0] as Outcome, await run(engine, CASES[0] as Case));
      } finally {
        await engine.close();
      }
    } catch (error) {
      return [(error as EngineError).code];
    }
  }

  // The first wait has nothing to wait for. Each of the next ones guards the buffer that is read into next.
  it.each([2, 3, 4, 7, 10, 13])('a load that does not wait for the %i-th time is noticed', async (n) => {
    expect(await hasty(n)).not.toEqual([]);
  });

  it('and one that waits always is not', async () => {
    expect(await hasty(100_000)).toEqual([]);
  });

  describe('a load that fails', () => {
    // Its last matrix cannot be f16: by then a copy of the one before is under way.
    const broken = join(directory, 'broken');
    mkdirSync(broken);
    const tensors = readTensors(model);
    tensors['lm_head.weight'] = { shape: [SHAPE.vocab, SHAPE.hidden], fill: (i) => (i === 700 ? 1e6 : 0) };
    writeSafetensors(broken, tensors);
    writeFileSync(join(broken, 'config.json'), readFileSync(join(model, 'config.json')));
    const fail = async (device: string): Promise<string> =>
      TestEngine.load(broken, { device, dtype: 'f16', contextTokens: 64 }).then(
        () => 'none',
        (error: unknown) => (error as EngineError).code,
      );

    it('keeps the memory of the host until no copy needs it', async () => {
      const before = [simt?.freedEarly(), simt?.allocatedBytes(), simt?.hostBytes()];
      expect(await fail('cuda:late')).toBe('ERR_INVALID_ARGUMENT');
      expect([simt?.freedEarly(), simt?.allocatedBytes(), simt?.hostBytes()]).toEqual(before);
    });

    it('is noticed if it does not', async () => {
      const before = simt?.freedEarly() ?? 0;
      // Embedding, two layers of nine tensors, norm: 20 slices that wait for the one before, then the buffers go.
      expect(await fail('cuda:hasty-21')).toBe('ERR_INVALID_ARGUMENT');
      expect(simt?.freedEarly()).toBe(before + 1);
    });

    it('as the model is closed meanwhile keeps it, too', async () => {
      const before = [simt?.freedEarly(), simt?.allocatedBytes(), simt?.hostBytes()];
      for (let i = 0; i < 10; i++) expect(await TestEngine.abandon(model, { device: 'cuda:late', drafter })).toBe(true);
      expect([simt?.freedEarly(), simt?.allocatedBytes(), simt?.hostBytes()]).toEqual(before);
    });
  });
});
