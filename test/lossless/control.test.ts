/**
 * Penalties, biases, bans and minimal lengths: the same ids with drafting on and off, alone and beside others, on every
 * level; those of a reference that knows nothing of the engine; and log-probabilities that stay those of the model.
 */
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { temporaryDirectory, type TinyShape, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { type Control, nativeControl, reference } from '../kit/control.js';
import { type EngineError, type GenerateOptions, TestEngine } from '../kit/native-engine.js';
import { Random } from '../kit/random.js';
import { testing } from '../kit/testing.js';
import { describeLevels, describeOnce, KERNELS } from '../native/ops/levels.js';
import { type Case, differences, expectLossless, type Outcome, run } from './compare.js';

const SHAPE: TinyShape = {
  ...{ vocab: 29, hidden: 40, layers: 2, heads: 4, kvHeads: 2, headDim: 24, ffn: 56, maxPositions: 512 },
};
const directory = temporaryDirectory('control');
const paths = { model: join(directory, 'model'), drafter: join(directory, 'gru') };
writeTinyLlama(paths.model, SHAPE, 41);
writeTinyDrafter(paths.drafter, 'gru', SHAPE.vocab, SHAPE.hidden, 42);

const simt = testing['simt'] as { graphLaunches(): number; allocatedBytes(): number } | undefined;

const PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4];
const ENDINGS = [0, 7, 11, 20];

const CONTROLS: Record<string, Control> = {
  'repetition penalty': { repetitionPenalty: 1.3 },
  'repetition reward': { repetitionPenalty: 0.6 },
  'presence penalty': { presencePenalty: 1.5 },
  'frequency penalty': { frequencyPenalty: 0.7 },
  'frequency reward': { frequencyPenalty: -2, presencePenalty: -2 },
  'logit bias': { logitBias: { 5: 2.5, 7: -3, 13: 1, 28: 100, 0: -100 } },
  'banned ids': { bannedTokenIds: [3, 9, 12, 13, 27] },
  'minimal length': { minTokens: 14 },
  all: {
    ...{ repetitionPenalty: 1.15, presencePenalty: 0.3, frequencyPenalty: 0.4, minTokens: 9 },
    ...{ bannedTokenIds: [2, 17], logitBias: { 4: 1.5, 17: 100, 21: -2 } },
  },
};
const SAMPLINGS = { greedy: {}, seeded: { temperature: 0.9, topP: 0.97, seed: 77n } };
const SHAPES: [number, number][] = KERNELS ? [[6, 3]] : [[1, 4], [8, 3], [64, 2], [24, 8]]; // prettier-ignore
const MAX_TOKENS = KERNELS ? 16 : 40;

/** Endings only where a minimal length speaks of them: elsewhere texts would end at once. */
const endingsOf = (control: Control): number[] => (control.minTokens === undefined ? [] : ENDINGS);

function caseOf(name: string, control: Control, sampling: GenerateOptions, logprobs = 2): Case {
  const eos = endingsOf(control);
  const options = { maxTokens: MAX_TOKENS, logprobs, ...sampling, ...nativeControl(control) };
  return { name, ids: PROMPT, options: { ...options, eos: eos.slice(0, 2), stop: eos.slice(2) } };
}

const CASES = Object.entries(CONTROLS).flatMap(([name, control]) =>
  Object.entries(SAMPLINGS).map(([kind, sampling]) => caseOf(`${name}, ${kind}`, control, sampling)),
);

describeLevels('control', (level) => {
  let engine: TestEngine;
  beforeAll(async () => {
    const device = level.startsWith('cuda') ? level : `cpu:${level}`;
    engine = await TestEngine.load(paths.model, { device, drafter: paths.drafter, contextTokens: 256, kvTokens: 8192 });
  });
  afterAll(() => engine.close());

  it.each(CASES)('$name: drafted as plain', async (c) => {
    const plain = await run(engine, c);
    const free = await run(engine, { ...c, options: { ...c.options, ...nativeControl({ minTokens: 0 }), ...NEUTRAL } });
    expect(plain.ids, 'it changes the text').not.toEqual(free.ids);
    for (const [beamWidth, beamLength] of SHAPES)
      expectLossless(plain, await run(engine, c, { beamWidth, beamLength }), `${beamWidth}x${beamLength}`);
    const silent = await run(
      engine,
      { ...c, options: { ...c.options, logprobs: -1 } },
      { beamWidth: 4, beamLength: 2 },
    );
    expect(silent.ids).toEqual(plain.ids);
  });

  it('accepts drafts below drafts, where the history is not only the session', async () => {
    let deep = 0;
    for (const c of KERNELS ? CASES.slice(0, 4) : CASES) {
      const { stats } = await run(engine, c, { beamWidth: KERNELS ? 12 : 64, beamLength: 3 });
      deep += stats.acceptedByDepth[1] ?? 0;
    }
    expect(deep).toBeGreaterThan(KERNELS ? 0 : 20);
  });

  it('gives each of a batch, with and without control, what it gives alone', async () => {
    const random = new Random(43);
    const requests = [...CASES, ...(KERNELS ? [] : CASES)].map((c, i) => {
      const free = i % 3 === 0;
      const ids = [...random.integers(random.integer(1, 30), 0, SHAPE.vocab)];
      const options = { ...c.options, ...(free ? NEUTRAL : {}), logprobs: (i % 3) - 1, maxTokens: 5 + (i % 11) };
      const [beamWidth, beamLength] = [[0, 0], [1, 4], [8, 2], [5, 3]][i % 4] as [number, number]; // prettier-ignore
      return { name: `${c.name} ${i}`, ids, options, shape: { beamWidth, beamLength } };
    });
    const alone: Outcome[] = [];
    for (const request of requests) alone.push(await run(engine, request));
    const together = await Promise.all(requests.map((request) => run(engine, request, request.shape)));
    together.forEach((outcome, i) => {
      expectLossless(alone[i] as Outcome, outcome, requests[i]?.name ?? '');
    });
  });

  it('gives the same when the context slides, drafted and not', async () => {
    const device = level.startsWith('cuda') ? level : `cpu:${level}`;
    const short = await TestEngine.load(paths.model, { device, drafter: paths.drafter, contextTokens: 40 });
    for (const { name, options } of KERNELS ? CASES.slice(-2) : CASES) {
      const c = { name, ids: PROMPT, options: { ...options, maxTokens: 60, slideKeep: 5, slideTail: 17 } };
      const plain = await run(short, c);
      if (plain.reason === 'length') expect(plain.stats.droppedTokens).toBeGreaterThan(30);
      expectLossless(plain, await run(short, c, { beamWidth: 6, beamLength: 3 }), name);
    }
    await short.close();
  });

  it('leaves log-probabilities to be those of the raw distribution', async () => {
    const { vocab } = SHAPE;
    const c = caseOf('all', CONTROLS['all'] ?? {}, {}, vocab);
    const drafted = await run(engine, c, { beamWidth: 8, beamLength: 2 });
    const session = await engine.open();
    for (const at of [0, 1, 5, 11]) {
      await engine.rewind(session, 0);
      const text = [...PROMPT, ...drafted.ids.slice(0, at)];
      const raw = await engine.generate(session, text, { maxTokens: 1, logprobs: vocab });
      expect(drafted.topIds.slice(at * vocab, (at + 1) * vocab)).toEqual(raw.topIds);
      expect(drafted.topLogprobs.slice(at * vocab, (at + 1) * vocab)).toEqual(raw.topLogprobs);
      expect(drafted.logprobs[at]).toBe(raw.topLogprobs[raw.topIds.indexOf(drafted.ids[at] ?? -1)]);
    }
    await engine.closeSession(session);
  });

  it('counts earlier turns as prompt, and only this one as generated', async () => {
    const control = nativeControl({ repetitionPenalty: 1.2, frequencyPenalty: 1.5 });
    const session = await engine.open();
    const first = await engine.generate(session, PROMPT, { maxTokens: 8, ...control, beamWidth: 6, beamLength: 2 });
    const second = await engine.generate(session, [5, 6], { maxTokens: 8, ...control, beamWidth: 6, beamLength: 2 });
    const ids = [...PROMPT, ...first.ids, 5, 6];
    const whole = await run(engine, { name: '', ids, options: { maxTokens: 8, ...control } });
    expect(second.ids).toEqual(whole.ids);
    await engine.closeSession(session);
  });

  it('fails when nothing is left that could be chosen, and others go on', async () => {
    const all = Int32Array.from({ length: SHAPE.vocab }, (_, id) => id);
    const [session, other] = [await engine.open(), await engine.open()];
    const options = { maxTokens: 6, beamWidth: 3, beamLength: 2 };
    const outcomes = await Promise.allSettled([
      engine.generate(session, PROMPT, { ...options, bannedTokenIds: all }),
      engine.generate(other, PROMPT, options),
    ]);
    expect(outcomes.map((outcome) => outcome.status)).toEqual(['rejected', 'fulfilled']);
    expect((outcomes[0] as PromiseRejectedResult).reason).toMatchObject({ code: 'ERR_NUMERIC' });
    expect(String((outcomes[0] as PromiseRejectedResult).reason)).toContain('no token can be chosen');
    for (const each of [session, other]) await engine.closeSession(each);
  });

  it.runIf(level === 'cuda:host')('is in the graphs of rounds, also when its arrays have moved', async () => {
    const c = caseOf('graphs', { repetitionPenalty: 1.3, frequencyPenalty: 0.5 }, {});
    const shape = { beamWidth: 3, beamLength: 2 };
    const long: Case = { ...c, options: { ...c.options, maxTokens: 30 } };
    const plain = await run(engine, long);
    const before = simt?.graphLaunches() ?? 0;
    expectLossless(plain, await run(engine, long, shape), 'graphs');
    expect((simt?.graphLaunches() ?? 0) - before).toBeGreaterThan(5);
    // A hundred times the entries: the arrays are made anew.
    const many = Array.from({ length: 80 }, () =>
      run(engine, { ...long, options: { ...long.options, maxTokens: 3 } }, shape),
    );
    const beside = await Promise.all([run(engine, long, shape), ...many]);
    expectLossless(plain, beside[0], 'moved');
    expectLossless(plain, await run(engine, long, shape), 'after it');
  });
});

describeOnce('memory for control', () => {
  const options = { maxTokens: 4, logprobs: 0, ...nativeControl({ repetitionPenalty: 1.3 }) };

  /** Loaded so that the next allocation fails. */
  async function loaded(device: string): Promise<TestEngine> {
    for (let n = 1; n < 100; n++) {
      try {
        const all = { drafter: paths.drafter, contextTokens: 64, threads: 1 };
        return await TestEngine.load(paths.model, { ...all, device: `${device}:failing-allocate-${n}` });
      } catch (error) {
        expect((error as EngineError).code).toBe('ERR_OOM');
      }
    }
    throw new Error('it never loads');
  }

  it.each(simt === undefined ? ['cpu'] : ['cpu', 'cuda'])('fails one request alone on %s', async (device) => {
    const engine = await loaded(device);
    const session = await engine.open();
    await expect(engine.generate(session, PROMPT, options)).rejects.toMatchObject({ code: 'ERR_OOM' });
    await engine.rewind(session, 0);
    const outcome = await engine.generate(session, PROMPT, { ...options, beamWidth: 4, beamLength: 2 });
    expect([outcome.ids.length, outcome.tokens]).toEqual([4, PROMPT.length + 4]);
    await engine.close();
  });

  it.each(simt === undefined ? ['cpu'] : ['cpu', 'cuda:host'])(
    'is there from the start for any tree that the planner may choose, on %s',
    async (device) => {
      const all = { ...paths, contextTokens: 128, kvTokens: 4096, device };
      const engine = await TestEngine.load(paths.model, { ...all, shapeSeed: 7 });
      const c: Case = { name: 'any tree', ids: PROMPT, options: { ...options, maxTokens: 12 } };
      const plain = await run(engine, c);
      const first = await run(engine, c, { adaptive: true });
      const after = simt?.allocatedBytes();
      for (let i = 0; i < 12; i++) expectLossless(plain, await run(engine, c, { adaptive: true }), 'alone');
      expectLossless(plain, first, 'first');
      expect(simt?.allocatedBytes()).toBe(after);
      const many = await Promise.all(Array.from({ length: 12 }, () => run(engine, c, { adaptive: true })));
      for (const outcome of many) expectLossless(plain, outcome, 'together');
      expect(many.reduce((sum, { stats }) => sum + stats.draftedNodes, 0)).toBeGreaterThan(12 * 10);
      await engine.close();
    },
  );

  it.skipIf(simt === undefined)('stays as it is until the device has read it', async () => {
    const engine = await TestEngine.load(paths.model, { ...paths, contextTokens: 128, device: 'cuda:late' });
    const c: Case = { name: 'late', ids: PROMPT, options: { ...options, maxTokens: 12 } };
    const plain = await run(engine, c);
    const all = await Promise.all([1, 2, 3].map((beamWidth) => run(engine, c, { beamWidth, beamLength: 3 })));
    for (const outcome of all) expectLossless(plain, outcome, 'late');
    await engine.close();
  });
});

/** Control that changes nothing. */
const NEUTRAL = nativeControl({ repetitionPenalty: 1, presencePenalty: 0, frequencyPenalty: 0, minTokens: 0 });

describeOnce('against a reference that knows nothing of the engine', () => {
  let engine: TestEngine;
  beforeAll(async () => {
    engine = await TestEngine.load(paths.model, { drafter: paths.drafter, contextTokens: 256 });
  });
  afterAll(() => engine.close());

  it.each(Object.entries(CONTROLS))('%s', async (name, control) => {
    for (const [kind, sampling] of Object.entries(SAMPLINGS)) {
      const c = caseOf(name, control, sampling);
      const expected = reference(paths, PROMPT, control, {
        maxTokens: MAX_TOKENS,
        ...sampling,
        endings: endingsOf(control),
      });
      expect((await run(engine, c)).ids, `${kind}, plain`).toEqual(expected);
      expect((await run(engine, c, { beamWidth: 32, beamLength: 3 })).ids, `${kind}, drafted`).toEqual(expected);
    }
  });

  it('control: the reference notices another order and another history', async () => {
    const control = CONTROLS['all'] ?? {};
    const options = { maxTokens: MAX_TOKENS, endings: ENDINGS };
    const expected = reference(paths, PROMPT, control, options);
    const halved = reference(paths, PROMPT, { ...control, frequencyPenalty: 0.2 }, options);
    expect(halved).not.toEqual(expected);
    const other = await run(engine, caseOf('other', { ...control, minTokens: 0 }, {}));
    const own = await run(engine, caseOf('own', control, {}));
    expect(differences(own, other)).not.toEqual([]);
  });
});
