/**
 * Masks of tokens, from a provider that knows what may follow each text: the same ids with drafting on and off, alone and beside
 * others, on every level; those of a reference that knows nothing of the engine; and providers that fail.
 */
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { answerTo, hasBit } from '../../lib/grammar/masks.js';
import { temporaryDirectory, type TinyShape, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { type Control, controlled, nativeControl, rawLogits } from '../kit/control.js';
import { askedTrees, HashMatcher, hashPosition } from '../kit/masks.js';
import { type EngineError, type GenerateOptions, TestEngine } from '../kit/native-engine.js';
import type { Ops } from '../kit/ops.js';
import { Random } from '../kit/random.js';
import { testing } from '../kit/testing.js';
import { describeLevels, describeOnce, KERNELS } from '../native/ops/levels.js';
import { differences, expectLossless, type Outcome, run } from './compare.js';

const SHAPE: TinyShape = {
  ...{ vocab: 45, hidden: 40, layers: 2, heads: 4, kvHeads: 2, headDim: 24, ffn: 56, maxPositions: 512 },
};
const { vocab } = SHAPE;
const directory = temporaryDirectory('masks');
const paths = { model: join(directory, 'model'), drafter: join(directory, 'gru') };
writeTinyLlama(paths.model, SHAPE, 51);
writeTinyDrafter(paths.drafter, 'gru', vocab, SHAPE.hidden, 52);

const simt = testing['simt'] as { graphLaunches(): number } | undefined;

const PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4];
const CONTROLS: Record<string, Control> = {
  none: {},
  penalties: {
    repetitionPenalty: 1.3,
    frequencyPenalty: 0.7,
    bannedTokenIds: [3, 9, 12],
    logitBias: { 5: 2.5, 7: -3 },
  },
};
const SAMPLINGS = {
  greedy: {},
  seeded: { temperature: 1.5, topP: 0.97, seed: 77n },
  hot: { temperature: 3, seed: 5n },
};
const SHAPES: [number, number][] = KERNELS ? [[6, 3]] : [[1, 4], [8, 3], [64, 2], [24, 8]]; // prettier-ignore
const MAX_TOKENS = KERNELS ? 14 : 40;

interface Masked {
  name: string;
  ids: number[];
  control: Control;
  options: GenerateOptions;
  /** Undefined: no masks. */
  seed: number | undefined;
  ending: boolean;
}

const CASES: Masked[] = Object.entries(CONTROLS).flatMap(([what, control], i) =>
  Object.entries(SAMPLINGS).map(([kind, sampling], j) => {
    const options = { maxTokens: MAX_TOKENS, logprobs: 2, ...sampling, ...nativeControl(control) };
    const seed = 10 * i + j;
    return { name: `${what}, ${kind}`, ids: PROMPT, control, options, seed, ending: j === 1 };
  }),
);

/** The tokens that must come, each from a fresh pass over the text, and whether the text ended. */
function reference(c: Masked): { ids: number[]; ends: boolean } {
  const { maxTokens = 0, temperature = 0, topP = 1, seed = 0n } = c.options;
  const generated: number[] = [];
  for (;;) {
    const { mask, ends } = hashPosition(vocab, c.seed ?? 0, generated, c.ending);
    if (ends || generated.length === maxTokens) return { ids: generated, ends };
    const text = [...c.ids, ...generated];
    const logits = controlled(rawLogits(paths, text), c.control, { prompt: c.ids, generated, endings: [] });
    const [id = -1] = (testing.ops satisfies Ops).sample('oracle', 1, {
      ...{ logits: logits.map((x, i) => (hasBit(mask, i) ? x : NaN)), vocab },
      ...{ temperature: Float32Array.of(temperature), topK: Int32Array.of(0), topP: Float32Array.of(topP) },
      ...{ minP: Float32Array.of(0), seed: BigUint64Array.of(seed), position: Int32Array.of(text.length) },
    });
    generated.push(id);
  }
}

describeLevels('masks', (level) => {
  const device = level.startsWith('cuda') ? level : `cpu:${level}`;
  const matchers = new Map<number, HashMatcher>();
  let engine: TestEngine;
  let stop: () => void;
  let last = 0;
  beforeAll(async () => {
    engine = await TestEngine.load(paths.model, { device, drafter: paths.drafter, contextTokens: 256, kvTokens: 8192 });
    stop = engine.provideMasks(matchers);
  });
  afterAll(async () => {
    stop();
    await engine.close();
  });

  /** With a matcher of its own. */
  function masked({ seed, ending, options, ...c }: Masked): Masked {
    if (seed === undefined) return { ...c, seed, ending, options };
    matchers.set(++last, new HashMatcher(vocab, seed, ending));
    return { ...c, seed, ending, options: { ...options, matcher: last } };
  }
  const runOn = (where: TestEngine, c: Masked, shape?: { beamWidth: number; beamLength: number }): Promise<Outcome> =>
    run(where, masked(c), shape);

  it.each(CASES)('$name: drafted as plain', async (c) => {
    const plain = await runOn(engine, c);
    for (const [beamWidth, beamLength] of SHAPES)
      expectLossless(plain, await runOn(engine, c, { beamWidth, beamLength }), `${beamWidth}x${beamLength}`);
    expect((await runOn(engine, { ...c, seed: undefined })).ids, 'it changes the text').not.toEqual(plain.ids);
  });

  it('ends where a text is complete, also at the last token that may come', async () => {
    let ended = 0;
    for (let seed = 0; seed < (KERNELS ? 4 : 20); seed++) {
      const c = { name: '', ids: PROMPT, control: {}, options: { maxTokens: 200 }, seed, ending: true };
      const plain = await runOn(engine, c);
      expect(plain.reason).toBe('stop');
      expect(hashPosition(vocab, seed, plain.ids, true).ends).toBe(true);
      expectLossless(plain, await runOn(engine, c, { beamWidth: 8, beamLength: 3 }), `${seed}`);
      const cut = { ...c, options: { maxTokens: plain.ids.length } };
      expectLossless(plain, { ...(await runOn(engine, cut, { beamWidth: 8, beamLength: 3 })), kv: plain.kv }, 'cut');
      const short = { ...c, options: { maxTokens: plain.ids.length - 1 } };
      expect((await runOn(engine, short, { beamWidth: 8, beamLength: 3 })).reason).toBe('length');
      ended++;
    }
    expect(ended).toBeGreaterThan(3);
  });

  it('gives each of a batch, with and without masks, what it gives alone', async () => {
    const random = new Random(43);
    const requests = [...CASES, ...CASES, ...(KERNELS ? [] : CASES)].map((c, i) => {
      const ids = [...random.integers(random.integer(1, 30), 0, vocab)];
      const options = { ...c.options, logprobs: (i % 3) - 1, maxTokens: 5 + (i % 11) };
      const [beamWidth, beamLength] = [[0, 0], [1, 4], [8, 2], [5, 3]][i % 4] as [number, number]; // prettier-ignore
      return { ...c, ids, options, seed: i % 3 === 0 ? undefined : i, shape: { beamWidth, beamLength } };
    });
    const alone: Outcome[] = [];
    for (const request of requests) alone.push(await runOn(engine, request));
    const together = await Promise.all(requests.map((request) => runOn(engine, request, request.shape)));
    together.forEach((outcome, i) => {
      expectLossless(alone[i] as Outcome, outcome, requests[i]?.name ?? '');
    });
  });

  it('gives the same when the context slides', async () => {
    const short = await TestEngine.load(paths.model, { device, drafter: paths.drafter, contextTokens: 40 });
    const stopShort = short.provideMasks(matchers);
    for (const c of KERNELS ? CASES.slice(2, 3) : CASES) {
      const sliding = { ...c, options: { ...c.options, maxTokens: 60, slideKeep: 5, slideTail: 17 }, ending: false };
      const plain = await runOn(short, sliding);
      expect(plain.stats.droppedTokens).toBeGreaterThan(20);
      expectLossless(plain, await runOn(short, sliding, { beamWidth: 6, beamLength: 3 }), c.name);
    }
    stopShort();
    await short.close();
  });

  it('control: masks of the root for all nodes, and those of siblings, are noticed', async () => {
    const faults: Record<string, typeof answerTo> = {
      root: async (question, all) => {
        const answer = await answerTo(question, all);
        for (const { tokens, at } of askedTrees(question)) answer.fill(answer[at] ?? 0, at, at + tokens.length);
        return answer;
      },
      sibling: (question, all) => {
        const wrong = question.slice();
        for (const { parents } of askedTrees(wrong)) for (let i = 1; i < parents.length; i++) parents[i] = i - 1;
        return answerTo(wrong, all);
      },
    };
    for (const [fault, answer] of Object.entries(faults)) {
      const faulty = await TestEngine.load(paths.model, { device, drafter: paths.drafter, contextTokens: 256 });
      const stopFaulty = faulty.provideMasks(matchers, answer);
      let found = 0;
      for (const c of CASES) {
        const plain = await runOn(engine, c);
        found += differences(plain, await runOn(faulty, c, { beamWidth: 24, beamLength: 3 })).length;
        if (found > 0) break;
      }
      expect(found, fault).toBeGreaterThan(0);
      stopFaulty();
      await faulty.close();
    }
  });

  it('fails what has no matcher, and what nothing may follow, and others go on', async () => {
    matchers.set(++last, {
      ...{ position: () => Promise.resolve({ mask: new Int32Array(Math.ceil(vocab / 32)), ends: false }) },
      ...{ accept: () => undefined, back: () => undefined, isEnding: () => false },
    } as unknown as HashMatcher);
    const sessions = await Promise.all([0, 1, 2].map(() => engine.open()));
    const options = { maxTokens: 6, beamWidth: 3, beamLength: 2 };
    const c = masked(CASES[0] as Masked);
    const outcomes = await Promise.allSettled([
      engine.generate(sessions[0] ?? 0, PROMPT, { ...options, matcher: last - 1 }),
      engine.generate(sessions[1] ?? 0, PROMPT, { ...options, matcher: 9999 }),
      engine.generate(sessions[2] ?? 0, PROMPT, { ...c.options, ...options }),
    ]);
    expect(
      outcomes.map((o) => (o.status === 'rejected' ? (o.reason as EngineError).code : o.value.ids.length)),
    ).toEqual([...['ERR_GRAMMAR', 'ERR_GRAMMAR_WORKER', 6]]);
    for (const each of sessions) await engine.closeSession(each);
  });

  it('fails requests with masks when their provider has failed, until there is another one', async () => {
    const own = await TestEngine.load(paths.model, { device, drafter: paths.drafter, contextTokens: 256 });
    const [first, second] = [await own.open(), await own.open()];
    const c = masked(CASES[0] as Masked);
    // Nobody makes masks: others are not held up.
    const waiting = own.generate(first, PROMPT, c.options);
    expect((await own.generate(second, PROMPT, { maxTokens: 5 })).ids).toHaveLength(5);
    own.engine.failMasks('gone');
    await expect(waiting).rejects.toMatchObject({ code: 'ERR_GRAMMAR_WORKER', message: 'ERR_GRAMMAR_WORKER: gone' });
    const stopOwn = own.provideMasks(matchers);
    await own.rewind(first, 0);
    expect((await own.generate(first, PROMPT, masked(CASES[0] as Masked).options)).ids).toHaveLength(MAX_TOKENS);
    stopOwn();
    await own.close();
  });

  it('ends requests that wait for masks with its own end, or theirs', async () => {
    const own = await TestEngine.load(paths.model, { device, drafter: paths.drafter, contextTokens: 256 });
    const [first, second] = [await own.open(), await own.open()];
    const late = await own.generate(first, PROMPT, { ...masked(CASES[0] as Masked).options, deadlineMs: 20 });
    expect([late.reason, late.ids]).toEqual(['deadline', []]);
    const waiting = own.generate(second, PROMPT, masked(CASES[0] as Masked).options);
    const failed = expect(waiting).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    await own.close();
    await failed;
  });

  it.runIf(level === 'cuda:host')('runs in three graphs, or two and its drafts', async () => {
    const c = { ...(CASES[2] as Masked), options: { ...(CASES[2] as Masked).options, maxTokens: 30 } };
    const counted = async (shape?: { beamWidth: number; beamLength: number }): Promise<[Outcome, number]> => {
      const before = simt?.graphLaunches() ?? 0;
      const outcome = await runOn(engine, c, shape);
      return [outcome, (simt?.graphLaunches() ?? 0) - before];
    };
    await counted(); // from the second time on there are graphs
    const [plain, ofPlain] = await counted();
    expect(ofPlain).toBe(3 * 29);
    await counted({ beamWidth: 3, beamLength: 2 });
    const [drafted, ofDrafted] = await counted({ beamWidth: 3, beamLength: 2 });
    expectLossless(plain, drafted, 'graphs');
    const { rounds, draftedRounds } = drafted.stats;
    expect(draftedRounds).toBeGreaterThan(5);
    expect(ofDrafted).toBe(2 * draftedRounds + 3 * (rounds - draftedRounds));
  });
});

describeOnce('masks, by a reference', () => {
  it.each(CASES)('$name', async (c) => {
    const engine = await TestEngine.load(paths.model, { drafter: paths.drafter, contextTokens: 256 });
    const stop = engine.provideMasks(new Map([[1, new HashMatcher(vocab, c.seed ?? 0, c.ending)]]));
    const options = { ...c.options, matcher: 1, beamWidth: 8, beamLength: 3 };
    const { ids, reason } = await run(engine, { ...c, options });
    const expected = reference(c);
    expect({ ids, reason }).toEqual({ ids: expected.ids, reason: expected.ends ? 'stop' : 'length' });
    stop();
    await engine.close();
  });
});
