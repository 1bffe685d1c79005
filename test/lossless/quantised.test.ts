/** Quantised weights, of target or drafter alone too: drafting changes no id, log-probability or KV byte, on every level, alone and in batches. */
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { bundled, promptIds, trainedDrafters } from '../kit/bundled.js';
import { temporaryDirectory, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { type GenerateOptions, TestEngine } from '../kit/native-engine.js';
import { QUANTISED } from '../kit/quantised.js';
import { testing } from '../kit/testing.js';
import { type Case, expectLossless, type Outcome, run } from './compare.js';

const directory = temporaryDirectory('quantised');
const shapes: [number, number][] = [[1, 5], [4, 4], [8, 5], [16, 3], [45, 5], [64, 8]]; // prettier-ignore
const samplings: [string, GenerateOptions][] = [
  ['greedy', {}],
  ['T 0.7, top-p 0.9', { temperature: 0.7, topP: 0.9, seed: 21n }],
  ['T 1.2', { temperature: 1.2, seed: 22n }],
];
const levels = (testing['ops'] as { levels(): string[] }).levels();
let ids: number[][] = [];

beforeAll(async () => {
  ids = await promptIds();
});

describe.each(QUANTISED)('the bundled model in %s', (dtype) => {
  const engines: Record<string, TestEngine> = {};
  const plain = new Map<string, Outcome>();
  let accepted = 0;
  beforeAll(async () => {
    writeTinyDrafter(join(directory, 'random'), 'elman', 2048, 256, 7);
    const load = (drafter: string): Promise<TestEngine> => TestEngine.load(bundled, { drafter, dtype, kvTokens: 8192 });
    engines['gru'] = await load(trainedDrafters.gru);
    engines['elman'] = await load(trainedDrafters.elman);
    engines['random'] = await load(join(directory, 'random'));
    expect(engines['gru'].info.dtype).toBe(dtype);
  });
  afterAll(async () => {
    for (const engine of Object.values(engines)) await engine.close();
  });
  const caseOf = (name: string, options: GenerateOptions, prompt: number): Case => ({
    name,
    ids: ids[prompt % ids.length] ?? [],
    options: { maxTokens: 80, logprobs: 2, ...options },
  });

  it.each(samplings)('%s', async (name, options) => {
    for (const prompt of [0, 1]) {
      const c = caseOf(name, options, prompt);
      for (const drafter of ['gru', 'elman', 'random']) {
        const engine = engines[drafter];
        if (engine === undefined) throw new Error(drafter);
        const key = `${name} ${prompt}`;
        const expected = plain.get(key) ?? (await run(engine, c));
        plain.set(key, expected);
        for (const [beamWidth, beamLength] of shapes) {
          const drafted = await run(engine, c, { beamWidth, beamLength });
          expectLossless(expected, drafted, `${key}, ${drafter} ${beamWidth}x${beamLength}`);
          accepted += drafted.ids.length - drafted.rounds.length;
        }
      }
    }
  });

  it('requests of a batch give what they give alone, drafted or not', async () => {
    const engine = engines['gru'];
    if (engine === undefined) throw new Error('gru');
    const cases = Array.from({ length: 12 }, (_, i) => {
      const [name, options] = samplings[i % samplings.length] ?? ['', {}];
      return caseOf(name, { ...options, maxTokens: 20 + 7 * i }, i);
    });
    const alone: Outcome[] = [];
    for (const c of cases) alone.push(await run(engine, c));
    const together = await Promise.all(
      cases.map((c, i) => run(engine, c, i % 3 === 0 ? {} : { beamWidth: 1 + i, beamLength: 1 + (i % 5) })),
    );
    together.forEach((outcome, i) => {
      expectLossless(alone[i] ?? outcome, outcome, `request ${i}`);
    });
  });

  it('drafts are accepted, so that the comparisons above mean something', () => {
    expect(accepted).toBeGreaterThan(1000);
  });
});

describe('levels of the CPU backend', () => {
  const shape = { vocab: 200, hidden: 72, layers: 2, heads: 3, kvHeads: 1, headDim: 24, ffn: 100, maxPositions: 512 };
  const prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4];
  it.each(levels)('%s: drafting changes nothing where no size is a multiple of 32', async (level) => {
    writeTinyLlama(join(directory, level), shape, 11);
    writeTinyDrafter(join(directory, `${level}-gru`), 'gru', shape.vocab, shape.hidden, 12);
    for (const dtype of QUANTISED) {
      const engine = await TestEngine.load(join(directory, level), {
        drafter: join(directory, `${level}-gru`),
        device: `cpu:${level}`,
        dtype,
      });
      for (const sampling of [{}, { temperature: 0.9, seed: 123n }]) {
        const c: Case = { name: '', ids: prompt, options: { maxTokens: 40, logprobs: 3, ...sampling } };
        const plain = await run(engine, c);
        // The plain loops take long.
        for (const [beamWidth, beamLength] of level === 'oracle' ? shapes.slice(0, 2) : shapes) {
          expectLossless(plain, await run(engine, c, { beamWidth, beamLength }), `${dtype} ${beamWidth}x${beamLength}`);
        }
      }
      await engine.close();
    }
  });
});

describe('a drafter of another element type than the target', () => {
  const DTYPES = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'auto'];
  const prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4];
  const shape = { vocab: 200, hidden: 72, layers: 2, heads: 3, kvHeads: 1, headDim: 24, ffn: 100, maxPositions: 512 };
  it.each(levels)('%s: changes nothing', async (level) => {
    const target = join(directory, `${level}-target`);
    const drafter = join(directory, `${level}-elman`);
    writeTinyLlama(target, shape, 13);
    writeTinyDrafter(drafter, 'elman', shape.vocab, shape.hidden, 14);
    for (const dtype of ['f32', 'bf16', 'q8_0']) {
      for (const sampling of [{}, { temperature: 0.9, seed: 124n }]) {
        const c: Case = { name: '', ids: prompt, options: { maxTokens: 40, logprobs: 3, ...sampling } };
        let plain: Outcome | undefined;
        for (const drafterDtype of DTYPES) {
          const engine = await TestEngine.load(target, { drafter, device: `cpu:${level}`, dtype, drafterDtype });
          plain ??= await run(engine, c);
          for (const [beamWidth, beamLength] of shapes.slice(0, level === 'oracle' ? 2 : 4)) {
            const drafted = await run(engine, c, { beamWidth, beamLength });
            expectLossless(plain, drafted, `${dtype}, ${drafterDtype} ${beamWidth}x${beamLength}`);
          }
          await engine.close();
        }
      }
    }
  });

  it('changes nothing with the trained drafters, whose drafts are accepted about as often', async () => {
    const c: Case = { name: '', ids: ids[0] ?? [], options: { maxTokens: 80, logprobs: 2 } };
    for (const drafter of [trainedDrafters.gru, trainedDrafters.elman]) {
      const rounds: number[] = [];
      for (const drafterDtype of DTYPES) {
        const engine = await TestEngine.load(bundled, { drafter, drafterDtype });
        expect([engine.info.dtype, engine.info.drafter?.dtype]).toEqual([
          'bf16',
          drafterDtype === 'auto' ? 'q8_0' : drafterDtype,
        ]);
        const plain = await run(engine, c);
        const drafted = await run(engine, c, { beamWidth: 4, beamLength: 4 });
        expectLossless(plain, drafted, drafterDtype);
        rounds.push(drafted.rounds.length);
        await engine.close();
      }
      expect(Math.max(...rounds)).toBeLessThan(40);
      expect(Math.max(...rounds)).toBeLessThan(1.25 * Math.min(...rounds));
    }
  });
});
