/**
 * Losslessness at the edges, on tiny random models where every case is cheap: all widths 1 to 64, all lengths 1 to 8,
 * odd shapes, every CPU level, requests that share batches, contexts that end.
 */
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { temporaryDirectory, type TinyShape, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { TestEngine } from '../kit/native-engine.js';
import { Random } from '../kit/random.js';
import { testing } from '../kit/testing.js';
import { type Case, expectLossless, type Outcome, run } from './compare.js';

const directory = temporaryDirectory('tiny');
const shapes: Record<string, TinyShape> = {
  // Nothing is a multiple of 16, and heads share KV three to one.
  odd: { vocab: 37, hidden: 24, layers: 2, heads: 3, kvHeads: 1, headDim: 8, ffn: 40, maxPositions: 512 },
  wide: { vocab: 200, hidden: 64, layers: 3, heads: 8, kvHeads: 2, headDim: 24, ffn: 112, maxPositions: 512 },
};

// Ids repeat in period, so that a drafter with a copy of the pattern would be right now and then.
const prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4];
let widths: TestEngine;

beforeAll(async () => {
  for (const [name, shape] of Object.entries(shapes)) {
    writeTinyLlama(join(directory, name), shape, 11);
    for (const cell of ['sum', 'elman', 'gru'] as const)
      writeTinyDrafter(join(directory, `${name}-${cell}`), cell, shape.vocab, shape.hidden, 12);
  }
  widths = await TestEngine.load(join(directory, 'odd'), { drafter: join(directory, 'odd-gru'), threads: 1 });
});

afterAll(async () => {
  await widths.close();
});

describe('beam shapes', () => {
  it('every width 1 to 64, greedy and seeded', async () => {
    for (const sampling of [{}, { temperature: 0.8, seed: 77n, topP: 0.95 }]) {
      const c: Case = { name: '', ids: prompt, options: { maxTokens: 48, logprobs: 2, ...sampling } };
      const plain = await run(widths, c);
      for (let beamWidth = 1; beamWidth <= 64; beamWidth++) {
        const shape = { beamWidth, beamLength: 1 + (beamWidth % 4) };
        expectLossless(plain, await run(widths, c, shape), `${beamWidth}x${shape.beamLength}`);
      }
    }
  });

  it('every length 1 to 8', async () => {
    const c: Case = { name: '', ids: prompt, options: { maxTokens: 64, temperature: 1, seed: 5n, logprobs: 0 } };
    const plain = await run(widths, c);
    for (let beamLength = 1; beamLength <= 8; beamLength++)
      for (const beamWidth of [1, 3, 8])
        expectLossless(plain, await run(widths, c, { beamWidth, beamLength }), `${beamWidth}x${beamLength}`);
  });
});

describe('levels of the CPU backend', () => {
  for (const level of (testing['ops'] as { levels(): string[] }).levels()) {
    for (const [name, cell] of [
      ['odd', 'elman'],
      ['wide', 'gru'],
      ['wide', 'sum'],
    ] as const) {
      it(`${level}: ${name}, ${cell}`, async () => {
        const engine = await TestEngine.load(join(directory, name), {
          drafter: join(directory, `${name}-${cell}`),
          device: `cpu:${level}`,
        });
        for (const sampling of [{}, { temperature: 0.9, seed: 123n }]) {
          const c: Case = { name: '', ids: prompt, options: { maxTokens: 40, logprobs: 3, ...sampling } };
          const plain = await run(engine, c);
          for (const [beamWidth, beamLength] of [
            [1, 4],
            [5, 3],
            [16, 2],
          ] as const)
            expectLossless(plain, await run(engine, c, { beamWidth, beamLength }), `${beamWidth}x${beamLength}`);
        }
        await engine.close();
      });
    }
  }
});

describe('requests that share rounds', () => {
  it('give what they give alone: prompts, shapes and samplings mixed', async () => {
    const engine = await TestEngine.load(join(directory, 'wide'), {
      drafter: join(directory, 'wide-gru'),
      prefillChunk: 5,
      kvTokens: 8192,
    });
    const random = new Random(9);
    const cases = Array.from({ length: 24 }, (_, i): Case & { shape: { beamWidth: number; beamLength: number } } => ({
      name: `request ${i}`,
      ids: Array.from({ length: 1 + random.integer(0, 60) }, () => random.integer(0, 200)),
      options: {
        maxTokens: 1 + random.integer(0, 60),
        logprobs: 1,
        ...(i % 2 === 0 ? {} : { temperature: 0.5 + random.uniform(), seed: BigInt(i) }),
      },
      shape:
        i % 3 === 0
          ? { beamWidth: 0, beamLength: 0 }
          : { beamWidth: 1 + random.integer(0, 20), beamLength: 1 + random.integer(0, 5) },
    }));
    const alone: Outcome[] = [];
    for (const c of cases) alone.push(await run(engine, c));
    const together = await Promise.all(cases.map((c) => run(engine, c, c.shape)));
    together.forEach((outcome, i) => {
      expectLossless(alone[i] ?? outcome, outcome, cases[i]?.name ?? '');
    });
    await engine.close();
  });

  it('wait for KV blocks in turn, and fail when they could never have them', async () => {
    const engine = await TestEngine.load(join(directory, 'odd'), {
      drafter: join(directory, 'odd-gru'),
      contextTokens: 128,
      kvTokens: 128,
    });
    const usage = engine.kvUsage();
    expect(usage.freeBlocks).toBe(usage.totalBlocks);
    const c: Case = { name: '', ids: prompt, options: { maxTokens: 100 } };
    const plain = await run(engine, c);
    const outcomes = await Promise.all(
      Array.from({ length: 12 }, () => run(engine, c, { beamWidth: 4, beamLength: 4 })),
    );
    for (const outcome of outcomes) expectLossless(plain, outcome, 'queued');
    // Idle sessions hold nearly all blocks: a request that needs more than what is left fails, and says so.
    const holders = [];
    for (let i = 0; i < 5; i++) {
      const holder = await engine.open();
      await engine.append(
        holder,
        Array.from({ length: 120 }, (_, at) => (at * 7 + i) % 37),
      );
      holders.push(holder);
    }
    const session = await engine.open();
    await expect(engine.generate(session, prompt, { maxTokens: 100 })).rejects.toMatchObject({ code: 'ERR_KV_FULL' });
    await engine.closeSession(holders[0] ?? 0);
    const freed = await engine.generate(session, [], { maxTokens: 100 });
    expect(freed.ids).toEqual(plain.ids);
    for (const holder of [...holders.slice(1), session]) await engine.closeSession(holder);
    expect(engine.kvUsage().freeBlocks).toBe(usage.totalBlocks);
    await engine.close();
  });
});
