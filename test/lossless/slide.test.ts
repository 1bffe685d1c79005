/**
 * Contexts that slide: what is generated is what anybody can compute from the rule, and it is the same with drafting on
 * and off, alone and beside others, in one piece and in two.
 */
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { temporaryDirectory, type TinyShape, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { type GenerateOptions, TestEngine } from '../kit/native-engine.js';
import { Random } from '../kit/random.js';
import { type Case, expectLossless, type Outcome, run } from './compare.js';

const SHAPE: TinyShape = {
  ...{ vocab: 61, hidden: 48, layers: 2, heads: 4, kvHeads: 2, headDim: 12, ffn: 64, maxPositions: 256 },
};
const CONTEXT = 100;
const directory = temporaryDirectory('slide');
const model = join(directory, 'model');
const drafter = join(directory, 'drafter');
writeTinyLlama(model, SHAPE, 41);
writeTinyDrafter(drafter, 'gru', SHAPE.vocab, SHAPE.hidden, 42);

const random = new Random(43);
const prompt = [...random.integers(60, 0, SHAPE.vocab)];
const KEEPS = [0, 1, 16, 37, 98];
const slide = (keep: number): GenerateOptions => ({ slideKeep: keep, slideTail: Math.floor((CONTEXT - keep) / 2) });
const SAMPLED: GenerateOptions = { temperature: 1, topP: 0.95, seed: 9n };

let engine: TestEngine;
beforeAll(async () => {
  engine = await TestEngine.load(model, {
    drafter,
    threads: 1,
    contextTokens: CONTEXT,
    prefillChunk: 19,
    kvTokens: 2000,
  });
});
afterAll(() => engine.close());

/** By the rule, with a fresh session for each stretch. */
async function byRule(
  keep: number,
  maxTokens: number,
  more: GenerateOptions = {},
): Promise<{ ids: number[]; dropped: number; last: Outcome }> {
  let held = [...prompt];
  const ids: number[] = [];
  let dropped = 0;
  for (;;) {
    const last = await run(engine, { name: '', ids: held, options: { ...more, maxTokens: maxTokens - ids.length } });
    ids.push(...last.ids);
    held.push(...last.ids);
    if (ids.length === maxTokens) return { ids, dropped, last };
    expect(held).toHaveLength(CONTEXT);
    const tail = Math.floor((CONTEXT - keep) / 2);
    dropped += CONTEXT - keep - tail;
    held = [...held.slice(0, keep), ...held.slice(-tail)];
  }
}

describe.each(KEEPS)('that keep %i tokens', (keep) => {
  const maxTokens = 40 + 3 * CONTEXT;
  const options: GenerateOptions = { maxTokens: keep === 98 ? 50 : maxTokens, ...slide(keep) };
  const greedy: Case = { name: 'greedy', ids: prompt, options: { ...options, logprobs: 1 } };

  it('give what the rule says', async () => {
    const expected = await byRule(keep, options.maxTokens ?? 0);
    const outcome = await run(engine, greedy);
    expect(outcome.ids).toEqual(expected.ids);
    expect(outcome.stats.droppedTokens).toBe(expected.dropped);
    expectLossless({ ...outcome, kv: expected.last.kv, tokens: expected.last.tokens }, outcome, 'what is held');
  });

  it('leave to a repetition penalty what they hold', async () => {
    const penalty = { repetitionPenalty: 1.4 };
    const { ids } = await byRule(keep, options.maxTokens ?? 0, penalty);
    expect((await run(engine, { ...greedy, options: { ...greedy.options, ...penalty } })).ids).toEqual(ids);
    expect(ids).not.toEqual((await run(engine, greedy)).ids);
  });

  it('give the same drafted, and beside others', async () => {
    const cases: Case[] = [greedy, { name: 'sampled', ids: prompt, options: { ...greedy.options, ...SAMPLED } }];
    const expected: Outcome[] = [];
    for (const each of cases) expected.push(await run(engine, each));
    const shapes = [
      [1, 4],
      [4, 3],
      [9, 8],
    ].map(([beamWidth = 0, beamLength = 0]) => ({ beamWidth, beamLength }));
    const work = shapes.flatMap((shape) => cases.map((each, i) => ({ shape, each, plain: expected[i] })));
    const outcomes = await Promise.all(work.map(({ each, shape }) => run(engine, each, shape)));
    work.forEach(({ plain, shape, each }, i) => {
      const outcome = outcomes[i] as Outcome;
      expectLossless(plain ?? outcome, outcome, `${each.name} ${JSON.stringify(shape)}`);
      expect(outcome.stats.droppedTokens).toBe(plain?.stats.droppedTokens);
    });
  });
});

it('a draw does not come again where a position does', async () => {
  // Uniform logits would show the draws themselves. Here: the stretch after the slide is not that of the same seed.
  const held = [
    ...prompt,
    ...(await run(engine, { name: '', ids: prompt, options: { ...SAMPLED, maxTokens: 40 } })).ids,
  ];
  const rest = [...held.slice(0, 10), ...held.slice(-45)];
  const again = await run(engine, { name: '', ids: rest, options: { ...SAMPLED, maxTokens: 30 } });
  const whole = await run(engine, { name: '', ids: prompt, options: { ...SAMPLED, maxTokens: 70, ...slide(10) } });
  expect(whole.stats.droppedTokens).toBe(45);
  expect(whole.ids.slice(40)).not.toEqual(again.ids);
  expect(whole.ids.slice(0, 40)).toEqual(held.slice(60));
});

it.each([
  { forked: false, available: 5 },
  { forked: true, available: 9 }, // three blocks that a slide drops are the fork's, too, and will not come free
])('what a slide needs is set aside at admission: %o', async ({ forked, available }) => {
  const tight = await TestEngine.load(model, { drafter, threads: 1, contextTokens: 128, kvTokens: 256 });
  const options: GenerateOptions = { maxTokens: 300, slideKeep: 20, slideTail: 54 };
  const expected = await run(tight, { name: '', ids: prompt, options });
  const first = await tight.open('a');
  await tight.append(first, prompt);
  if (forked) await tight.fork(first);
  const fill = async (left: number): Promise<void> => {
    for (;;) {
      const { freeBlocks, prefixBlocks } = tight.kvUsage();
      const more = Math.min(8, freeBlocks + prefixBlocks - left);
      if (more <= 0) return;
      await tight.append(await tight.open(), [...random.integers(16 * more, 0, SHAPE.vocab)]);
    }
  };
  await fill(available + 3);
  const last = await tight.open();
  await tight.append(last, [...random.integers(16 * 4, 0, SHAPE.vocab)]); // one too many
  await expect(tight.generate(first, [], options)).rejects.toMatchObject({ code: 'ERR_KV_FULL' });
  await tight.rewind(last, 48);
  const { freeBlocks, prefixBlocks } = tight.kvUsage();
  expect(freeBlocks + prefixBlocks).toBe(available);
  const outcome = await tight.generate(first, [], options);
  expectLossless(expected, { ...outcome, kv: await tight.readKv(first) }, '');
  await tight.close();
});

it('a request that would not slide is the same with and without the option', async () => {
  const options = { maxTokens: 40, ...SAMPLED };
  const without = await run(engine, { name: '', ids: prompt, options });
  expectLossless(without, await run(engine, { name: '', ids: prompt, options: { ...options, ...slide(5) } }), '');
});

it('wrong numbers are refused', async () => {
  const session = await engine.open();
  for (const [slideKeep, slideTail] of [
    [0, 0],
    [0, CONTEXT],
    [CONTEXT - 1, 1],
    [50, -1],
  ] as const) {
    const work = engine.generate(session, prompt, { maxTokens: 1, slideKeep, slideTail });
    await expect(work).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  }
  await engine.closeSession(session);
});
