/**
 * Constrained decoding of the trained model: texts that parse and validate, for many seeds; the same ids with drafting on and
 * off, alone and beside others; and a thread that is not in anybody's way, and may die.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Worker } from 'node:worker_threads';

import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

import { type GenerateOptions, type GenerationResult, type Grammar, Model } from '../../lib/index.js';
import { Compiler } from '../../lib/grammar/compiler.js';
import { resolveGrammar } from '../../lib/grammar/options.js';
import { hasBit } from '../../lib/grammar/masks.js';
import type { Tokenizer } from '../../lib/tokenizer.js';
import { bundled, trainedDrafters } from '../kit/bundled.js';
import { isValid, SCHEMAS } from '../kit/schema.js';

const PERSON: Grammar = { type: 'json_schema', schema: SCHEMAS.person?.schema ?? {} };
const GRAMMARS: Record<string, Grammar> = {
  person: PERSON,
  shapes: { type: 'json_schema', schema: SCHEMAS.shapes?.schema ?? {} },
  json: { type: 'json' },
  regex: { type: 'regex', pattern: '(export (type|interface) [A-Z]\\w{2,20} = (string|number);\\n)+' },
  ebnf: { type: 'ebnf', grammar: 'root ::= "{" (member ";")* "}"\nmember ::= [a-z]+ ": " ("string" | "number")' },
};
const PROMPT = 'export interface Options {\n';
const SHAPES = [[1, 4], [6, 3], [16, 2]] as const; // prettier-ignore

let model: Model;
beforeAll(async () => {
  model = await Model.load(bundled, { drafter: trainedDrafters.gru, threads: 2, contextTokens: 512, kvTokens: 16384 });
});
afterAll(() => model.dispose());

async function run(options: GenerateOptions, prompt = PROMPT): Promise<GenerationResult> {
  const session = await model.createSession();
  const result = await session.generate(prompt, { maxTokens: 80, ...options }).result();
  expect(session.tokens - (model.tokenizer?.encode(prompt).length ?? 0)).toBe(result.tokenIds.length);
  await session.dispose();
  return result;
}

/** Ids, end and probabilities. */
const told = ({ tokenIds, finishReason, text, logprobs }: GenerationResult): object => ({
  tokenIds,
  finishReason,
  text,
  logprobs,
});

describe('a grammar', () => {
  it.each(Object.entries(GRAMMARS))(
    '%s: the same with drafting on and off, greedy and seeded',
    async (name, grammar) => {
      let accepted = 0;
      for (const sampling of [
        {},
        ...[1, 2, 3].map((seed) => ({ temperature: 1.5, seed })),
        { temperature: 0.8, seed: 4, topP: 0.9 },
      ]) {
        const options = { grammar, logprobs: 1, ...sampling };
        const plain = await run({ ...options, drafting: false });
        for (const [beamWidth, beamLength] of SHAPES) {
          const drafted = await run({ ...options, beamWidth, beamLength });
          expect(told(drafted)).toEqual(told(plain));
          accepted += drafted.stats.acceptedByDepth[1] ?? 0;
        }
        expect(told(await run(options)), 'a shape for each round').toEqual(told(plain));
      }
      if (name !== 'shapes') expect(accepted, 'drafts below drafts').toBeGreaterThan(0);
    },
  );

  it('is followed as a reference follows it, that masks each token from the whole text', async () => {
    const compiler = await Compiler.create(model.tokenizer as Tokenizer, model.info.vocab);
    const { tokenIds } = await run({
      grammar: PERSON,
      temperature: 1.2,
      seed: 9,
      logprobs: 0,
      beamWidth: 6,
      beamLength: 3,
    });
    const session = await model.createSession();
    for (const [at, id] of tokenIds.entries()) {
      const matcher = await compiler.matcher(resolveGrammar(PERSON) ?? '', model.info.eosTokenIds);
      for (const before of tokenIds.slice(0, at)) if (!matcher.isEnding(before)) matcher.accept(before);
      const { mask } = await matcher.position();
      matcher.dispose();
      const banned = Array.from({ length: model.info.vocab }, (_, one) => one).filter((one) => !hasBit(mask, one));
      await session.rewind(0);
      const input = [...(model.tokenizer?.encode(PROMPT) ?? []), ...tokenIds.slice(0, at)];
      const one = session.generate(input, {
        maxTokens: 1,
        temperature: 1.2,
        seed: 9,
        bannedTokenIds: banned,
        ignoreEos: true,
      });
      expect((await one.result()).tokenIds, `token ${at}`).toEqual([id]);
    }
    await session.dispose();
  });

  it('gives texts that parse and validate, whatever is drawn', async () => {
    let ended = 0;
    const many = Array.from({ length: 32 }, (_, seed) => seed);
    const results = await Promise.all(
      many.map((seed) => run({ grammar: PERSON, temperature: 1.5, seed, maxTokens: 200, beamWidth: 4, beamLength: 3 })),
    );
    for (const { finishReason, text, tokenIds } of results) {
      if (finishReason === 'length') {
        expect(tokenIds).toHaveLength(200);
        continue;
      }
      expect(isValid(SCHEMAS.person?.schema, JSON.parse(text)), text).toBe(true);
      ended++;
    }
    expect(ended).toBeGreaterThan(10);
  });

  it('gives each of a batch what it gives alone, beside requests without one and with penalties', async () => {
    const grammars = Object.values(GRAMMARS);
    const all = Array.from({ length: 24 }, (_, i): GenerateOptions => ({
      ...(i % 3 === 0 ? {} : { grammar: grammars[i % grammars.length] as Grammar }),
      ...(i % 4 === 1 ? { repetitionPenalty: 1.2, frequencyPenalty: 0.4, logitBias: { 40: -100, 41: 3 } } : {}),
      ...(i % 2 === 0 ? {} : { temperature: 1.3, seed: i }),
      maxTokens: 10 + (i % 7) * 8,
      ...[{ beamWidth: 4, beamLength: 3 }, { drafting: false }, { beamWidth: 1, beamLength: 5 }][i % 3],
    }));
    const alone: GenerationResult[] = [];
    for (const options of all) alone.push(await run({ ...options, drafting: false }));
    const together = await Promise.all(all.map((options) => run(options)));
    together.forEach((result, i) => {
      expect(told(result), `request ${i}`).toEqual(told(alone[i] as GenerationResult));
    });
  });

  it('ends where the text is complete, with stop, and EOS only behind what is', async () => {
    const yes: Grammar = { type: 'ebnf', grammar: 'root ::= "yes" | "yes, yes"' };
    const either = await run({
      grammar: yes,
      temperature: 1,
      seed: 1,
      logitBias: { [model.info.eosTokenIds[0] ?? 0]: 100 },
    });
    expect([either.text, either.finishReason, either.tokenIds.at(-1)]).toEqual([
      'yes',
      'eos',
      model.info.eosTokenIds[0],
    ]);
    const longer = await run({ grammar: yes, bannedTokenIds: [...model.info.eosTokenIds] });
    expect([longer.text, longer.finishReason]).toEqual(['yes, yes', 'stop']);
    const ids = model.tokenizer?.encode('yes', { addSpecialTokens: false }).length ?? 0;
    const cut = await run({ grammar: { type: 'regex', pattern: 'yes' }, maxTokens: longer.tokenIds.length });
    expect([cut.text, cut.finishReason]).toEqual(['yes', 'stop']);
    const exact = await run({ grammar: { type: 'regex', pattern: 'yes' }, maxTokens: cut.tokenIds.length });
    expect([exact.text, exact.finishReason]).toEqual(['yes', 'stop']);
    expect(ids).toBeGreaterThan(0);
    // minTokens holds EOS back as long as there is something else.
    const held = await run({
      grammar: { type: 'regex', pattern: '(ab)+' },
      minTokens: 12,
      maxTokens: 40,
      logitBias: { [model.info.eosTokenIds[0] ?? 0]: 100 },
    });
    expect(held.finishReason).toBe('eos');
    expect(held.text).toMatch(/^(ab){6,}$/);
    const stopped = await run({ grammar: { type: 'regex', pattern: '[a-z]{5}-[a-z]{5}' }, stop: '-' });
    expect(stopped).toMatchObject({ finishReason: 'stop', text: expect.stringMatching(/^[a-z]{5}$/) as string });
  });

  it('begins anew with each generation, and for each of several samples', async () => {
    const session = await model.createSession();
    const grammar: Grammar = { type: 'regex', pattern: '\\d{3}' };
    for (let i = 0; i < 2; i++) expect((await session.generate('= ', { grammar }).result()).text).toMatch(/^\d{3}$/);
    const fork = await session.fork();
    expect((await fork.generate(' ', { grammar }).result()).text).toMatch(/^\d{3}$/);
    const samples = await session.generateMany('; ', { grammar, n: 4, temperature: 1.4, seed: 7 });
    const texts = await Promise.all(samples.map(async (sample) => (await sample.result()).text));
    for (const text of texts) expect(text).toMatch(/^\d{3}$/);
    expect(new Set(texts).size).toBeGreaterThan(1);
    await Promise.all([session.dispose(), fork.dispose()]);
  });
});

describe('the thread of grammars', () => {
  it('says what is wrong with a grammar, and the session is as it was', async () => {
    const session = await model.createSession();
    await session.append(PROMPT);
    const before = session.tokens;
    const failed = session.generate('more', { grammar: { type: 'ebnf', grammar: 'root ::= "a" other' } }).result();
    await expect(failed).rejects.toMatchObject({
      code: 'ERR_GRAMMAR',
      message: expect.stringContaining('"other" is not defined') as string,
    });
    expect(session.tokens).toBe(before);
    expect(() => session.generate('x', { grammar: { type: 'json_schema', schema: { not: {} } } })).toThrow(
      'not is not supported',
    );
    expect((await session.generate('x', { maxTokens: 2 }).result()).tokenIds).toHaveLength(2);
    await session.dispose();
  });

  it('fails what nothing may follow, alone', async () => {
    const [grammar, other] = [{ type: 'regex', pattern: '\\d' } as const, run({ maxTokens: 30 })];
    const digits = Array.from({ length: model.info.vocab }, (_, id) => id).filter((id) =>
      /^\d$/.test(model.tokenizer?.decode([id]) ?? ''),
    );
    await expect(run({ grammar, bannedTokenIds: digits })).rejects.toMatchObject({ code: 'ERR_GRAMMAR' });
    expect((await other).tokenIds).toHaveLength(30);
  });

  it('is not waited for by a generation that is aborted, or whose signal fires', async () => {
    const grammar: Grammar = { type: 'json_schema', schema: { type: 'string', maxLength: 997 } };
    const session = await model.createSession();
    const generation = session.generate(PROMPT, { grammar });
    generation.abort();
    expect(await generation.result()).toMatchObject({ finishReason: 'abort', tokenIds: [], text: '' });
    expect(session.tokens).toBe(model.tokenizer?.encode(PROMPT).length);
    const controller = new AbortController();
    const signalled = session.generate('', {
      grammar: { ...grammar, schema: { type: 'string', maxLength: 996 } },
      signal: controller.signal,
    });
    controller.abort();
    await expect(signalled.result()).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    for await (const chunk of session.generate('', { grammar: { type: 'regex', pattern: '\\w{40}' } }))
      if (chunk.tokenIds.length > 0) break;
    expect((await session.generate('', { grammar: { type: 'regex', pattern: 'abc' } }).result()).text).toBe('abc');
    await session.dispose();
  });

  it('does not hold up the event loop, nor requests without a grammar', async () => {
    const delay = monitorEventLoopDelay({ resolution: 1 });
    const beside = run({ maxTokens: 200, ignoreEos: true, drafting: false });
    delay.enable();
    const grammar: Grammar = { type: 'json_schema', schema: { type: 'string', minLength: 5, maxLength: 900 } };
    const start = performance.now();
    await run({ grammar, maxTokens: 3 });
    const compiled = performance.now() - start;
    delay.disable();
    const { hostMs, rounds } = (await beside).stats;
    expect(compiled).toBeGreaterThan(100);
    expect(delay.max / 1e6).toBeLessThan(compiled / 2);
    expect(hostMs / rounds).toBeLessThan(compiled / 10);
  });

  it('takes its requests with it when it dies, and others go on, and so does the next', async () => {
    const workers: Worker[] = [];
    const post = vi.spyOn(Worker.prototype, 'postMessage').mockImplementation(function (this: Worker, ...args) {
      workers.push(this);
      post.mockRestore();
      this.postMessage(...args);
    });
    const grammar: Grammar = { type: 'regex', pattern: '[a-z]+' };
    const beside = run({ maxTokens: 120, ignoreEos: true });
    const constrained = [run({ grammar, maxTokens: 400 }), run({ grammar, maxTokens: 400, drafting: false })];
    const failed = Promise.allSettled(constrained);
    while (workers.length === 0) await new Promise(setImmediate);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await workers[0]?.terminate();
    for (const outcome of await failed) {
      expect(outcome).toMatchObject({
        status: 'rejected',
        reason: { code: 'ERR_GRAMMAR_WORKER', name: 'InternalError' },
      });
    }
    expect((await beside).tokenIds).toHaveLength(120);
    expect((await run({ grammar, maxTokens: 5 })).text).toMatch(/^[a-z]+$/);
  });

  it('ends with its model, also while it works or compiles', async () => {
    const other = await Model.load(bundled, { threads: 1, contextTokens: 256 });
    const [first, second] = [await other.createSession(), await other.createSession()];
    const running = first.generate(PROMPT, { grammar: { type: 'regex', pattern: '[a-z ]+' }, maxTokens: 200 });
    for await (const chunk of running) if (chunk.tokenIds.length > 0) break;
    const work = first.generate('', { grammar: { type: 'regex', pattern: '[a-z]+' }, maxTokens: 200 }).result();
    const compiling = second
      .generate(PROMPT, { grammar: { type: 'json_schema', schema: { type: 'string', maxLength: 993 } } })
      .result();
    const failed = Promise.allSettled([work, compiling]);
    await other.dispose();
    for (const outcome of await failed)
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'ERR_DISPOSED' } });
  });
});
