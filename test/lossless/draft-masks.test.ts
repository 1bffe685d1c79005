/**
 * The drafter keeps to what its requests may choose: what it drafts is what a grammar allows behind each beam, and no banned
 * id; alone, beside others, in several pieces, and on streams that do everything late. The output is the same in any case.
 */
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { answerTo, type Matcher } from '../../lib/grammar/masks.js';
import { temporaryDirectory, type TinyShape, writeTinyDrafter, writeTinyLlama } from '../kit/checkpoint.js';
import { nativeControl } from '../kit/control.js';
import { askedTrees, ForcedMatcher, HashMatcher } from '../kit/masks.js';
import { type GenerateOptions, TestEngine } from '../kit/native-engine.js';
import { Random } from '../kit/random.js';
import { describeLevels, KERNELS } from '../native/ops/levels.js';
import { type Case, expectLossless, type Outcome, run } from './compare.js';

const SHAPE: TinyShape = {
  ...{ vocab: 45, hidden: 40, layers: 2, heads: 4, kvHeads: 2, headDim: 24, ffn: 56, maxPositions: 512 },
};
const { vocab } = SHAPE;
const directory = temporaryDirectory('draft-masks');
const [model, drafter] = [join(directory, 'model'), join(directory, 'gru')];
writeTinyLlama(model, SHAPE, 51);
writeTinyDrafter(drafter, 'gru', vocab, SHAPE.hidden, 52);

const BANNED = [3, 9, 12];
const bans = nativeControl({ bannedTokenIds: BANNED, logitBias: { 5: -30 } });

interface Masked extends Case {
  matcher?: () => Matcher;
}

const random = new Random(61);
const ids = (): number[] => [...random.integers(random.integer(3, 20), 0, vocab)];
const seeded = (i: number): GenerateOptions => ({ temperature: 1.5, topP: 0.97, seed: BigInt(i) });
const maxTokens = KERNELS ? 14 : 40;
const hash = (seed: number) => (): Matcher => new HashMatcher(vocab, seed);
/** With a grammar, bans, both and neither; greedy and seeded. */
const CASES: Masked[] = [
  { name: 'grammar', ids: ids(), options: { maxTokens }, matcher: hash(1) },
  { name: 'grammar, bans, seeded', ids: ids(), options: { maxTokens, ...bans, ...seeded(2) }, matcher: hash(2) },
  { name: 'neither, seeded', ids: ids(), options: { maxTokens, ...seeded(3) } },
  { name: 'bans', ids: ids(), options: { maxTokens, ...bans } },
  { name: 'grammar, seeded', ids: ids(), options: { maxTokens: maxTokens - 5, ...seeded(5) }, matcher: hash(5) },
];

interface Seen {
  /** Nodes of the trees that the target was given; behind banned ones; and those that may not follow. */
  nodes: number;
  refused: number;
  banned: Map<number, number>;
}

describeLevels('drafts with masks', (level) => {
  const device = level.startsWith('cuda') ? level : `cpu:${level}`;
  const matchers = new Map<number, Matcher>();
  const load = (on = device): Promise<TestEngine> =>
    TestEngine.load(model, { device: on, drafter, contextTokens: 256, kvTokens: 8192 });
  let engine: TestEngine;
  let stop: () => void;
  let last = 0;
  beforeAll(async () => {
    engine = await load();
    stop = engine.provideMasks(matchers);
  });
  afterAll(async () => {
    stop();
    await engine.close();
  });

  const runOn = (on: TestEngine, { matcher, ...c }: Masked, drafting: GenerateOptions = {}): Promise<Outcome> => {
    if (matcher === undefined) return run(on, c, drafting);
    matchers.set(++last, matcher());
    return run(on, c, { ...drafting, matcher: last });
  };

  /** Runs all cases at once, and looks at the trees. */
  async function look(on: string, drafting: GenerateOptions): Promise<[Outcome[], Seen]> {
    const seen: Seen = { nodes: 0, refused: 0, banned: new Map() };
    const own = await load(on);
    const stopOwn = own.provideMasks(matchers, async (question, all) => {
      const answer = await answerTo(question, all);
      for (const { matcher, tokens, wanted, at } of askedTrees(question)) {
        if (wanted > 0) continue; // a question between two steps
        seen.nodes += tokens.length - 1;
        seen.refused += answer.subarray(at, at + tokens.length).filter((mask) => mask === -1).length;
        const banned = tokens.subarray(1).filter((id) => [...BANNED, 5].includes(id)).length;
        seen.banned.set(matcher, (seen.banned.get(matcher) ?? 0) + banned);
      }
      return answer;
    });
    const first = last + 1;
    const outcomes = await Promise.all(CASES.map((c) => runOn(own, c, drafting)));
    stopOwn();
    await own.close();
    seen.banned = new Map([...seen.banned].map(([matcher, count]) => [matcher - first, count]));
    return [outcomes, seen];
  }

  // Of 64 beams there are two requests at a time, or all, or each is drafted alone.
  const shapes = KERNELS ? [[24, 2], [3, 3], [64, 1]] : [[24, 3], [3, 4], [64, 2]]; // prettier-ignore
  const devices = level === 'cuda:host' ? [device, 'cuda:late'] : [device];
  it.each(devices.flatMap((on) => shapes.map(([w, l]) => ({ on, beamWidth: w ?? 0, beamLength: l ?? 0 }))))(
    'drafts nothing that may not follow and nothing that is banned: $beamWidth x $beamLength on $on',
    async ({ on, ...shape }) => {
      const plain: Outcome[] = [];
      for (const c of CASES) plain.push(await runOn(engine, c));
      const [outcomes, seen] = await look(on, shape);
      outcomes.forEach((outcome, i) => {
        expectLossless(plain[i] as Outcome, outcome, CASES[i]?.name ?? '');
      });
      expect(seen.nodes).toBeGreaterThan(100);
      expect(seen.refused).toBe(0);
      expect(seen.banned.get(1), 'of the second request').toBe(0);
      expect(Math.max(...seen.banned.values()), 'without bans they come').toBeGreaterThan(0);
    },
  );

  it.runIf(level === 'cuda:host')('control: a head that gives all beams the mask of the first is noticed', async () => {
    const [outcomes, seen] = await look('cuda:planted-mask-of-first', { beamWidth: 6, beamLength: 2 });
    expect(seen.refused).toBeGreaterThan(20);
    for (const [i, c] of CASES.entries()) expectLossless(await runOn(engine, c), outcomes[i] as Outcome, c.name);
  });

  // The drafter was trained on nothing: of 45 ids it would seldom draft the right one.
  it('is accepted to the end where one token alone may follow, whatever the drafter would say', async () => {
    const forced = { name: '', ids: ids(), options: { maxTokens: 13 }, matcher: () => new ForcedMatcher(vocab, 7) };
    const lengths = ({ rounds }: Outcome): number[] => rounds.map((each) => each.length);
    const plain = await runOn(engine, forced);
    const drafted = await runOn(engine, forced, { beamWidth: 3, beamLength: 3 });
    expectLossless(plain, drafted, 'forced');
    expect(lengths(drafted)).toEqual([1, 4, 4, 4]);

    const unmasked = await load();
    const stopUnmasked = unmasked.provideMasks(matchers, async (question, all) => {
      const answer = await answerTo(question, all);
      for (const { tokens, wanted, at } of askedTrees(question)) {
        if (wanted > 0) answer.fill(-1, at, at + tokens.length);
      }
      return answer;
    });
    const free = await runOn(unmasked, forced, { beamWidth: 3, beamLength: 3 });
    expectLossless(plain, free, 'unmasked');
    expect(free.rounds.length, 'control: without masks between steps').toBeGreaterThan(5);
    stopUnmasked();
    await unmasked.close();
  });

  it('fails requests with a grammar alone when their provider fails in the middle of a draft', async () => {
    const own = await load();
    const stopOwn = own.provideMasks(matchers, (question, all) => {
      if (askedTrees(question).every(({ wanted }) => wanted === 0)) return answerTo(question, all);
      own.engine.failMasks('gone');
      return new Promise(() => undefined);
    });
    const drafting = { beamWidth: 3, beamLength: 3 };
    const outcomes = await Promise.allSettled(CASES.map((c) => runOn(own, c, drafting)));
    for (const [i, c] of CASES.entries()) {
      const outcome = outcomes[i] as (typeof outcomes)[number];
      if (outcome.status === 'fulfilled') expectLossless(await runOn(engine, c), outcome.value, c.name);
      else expect(outcome.reason).toMatchObject({ code: 'ERR_GRAMMAR_WORKER' });
      expect(outcome.status, c.name).toBe(c.matcher === undefined ? 'fulfilled' : 'rejected');
    }
    stopOwn();
    await own.close();
  });

  it.runIf(level === 'cuda:host')('ends with the error of a device that fails in the middle of a draft', async () => {
    const own = await load('cuda:failing-head_top-5');
    const stopOwn = own.provideMasks(matchers);
    await expect(runOn(own, CASES[0] as Masked, { beamWidth: 3, beamLength: 3 })).rejects.toMatchObject({
      code: 'ERR_CUDA',
    });
    stopOwn();
    await own.close();
  });
});
