/** Text with drafting on and off: stop strings across the borders of tokens, characters and drafted runs. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Model, type Chunk, type GenerateOptions, type GenerationResult } from '../../lib/index.js';
import { bundled, trainedDrafters } from '../kit/bundled.js';
import { Random } from '../kit/random.js';
import { writeTinyModel } from '../lib/tiny.js';

interface Run {
  chunks: Chunk[];
  result: GenerationResult;
  /** What the session says next. */
  rest: number[];
}

async function run(model: Model, input: string | number[], options: GenerateOptions): Promise<Run> {
  const session = await model.createSession();
  const prompt = typeof input === 'string' ? model.tokenizer?.encode(input).length : input.length;
  const generation = session.generate(input, { ignoreEos: true, ...options });
  const chunks: Chunk[] = [];
  for await (const chunk of generation) chunks.push(chunk);
  const result = await generation.result();
  expect(chunks.map((chunk) => chunk.text).join('')).toBe(result.text);
  expect(chunks.flatMap((chunk) => chunk.tokenIds)).toEqual(result.tokenIds);
  expect(session.tokens).toBe((prompt ?? 0) + result.tokenIds.length);
  const next = { maxTokens: 4, ignoreEos: true, drafting: options.drafting ?? true };
  const rest = (await session.generate([], next).result()).tokenIds;
  await session.dispose();
  return { chunks, result, rest };
}

/** What a run must give by definition: tokens up to the one that completes the stop string, text up to the string. */
function cutAt(model: Model, ids: readonly number[], stop: string): { text: string; tokens: number } {
  const detokenizer = model.tokenizer?.detokenizer(1); // some token before: text continues
  let text = '';
  for (const [i, id] of ids.entries()) {
    text += detokenizer?.push(id) ?? '';
    const at = text.indexOf(stop);
    if (at >= 0) return { text: text.slice(0, at), tokens: i + 1 };
  }
  return { text: text + (detokenizer?.flush() ?? ''), tokens: ids.length };
}

describe('a stop string', () => {
  let model: Model;
  beforeAll(async () => {
    model = await Model.load(bundled, { drafter: trainedDrafters.gru, threads: 2, kvTokens: 4096 });
  });
  afterAll(() => model.dispose());

  it('from anywhere in the text ends both ways of decoding at the same token and character', async () => {
    const prompt = 'interface Point {\n';
    const whole = (await run(model, prompt, { maxTokens: 48, drafting: false })).result;
    let insideDraft = 0;
    let insideToken = 0;
    for (let at = 0; at < whole.text.length; at += 2) {
      for (const length of [1, 3, 16]) {
        const stop = whole.text.slice(at, at + length);
        const beams = { beamWidth: 4, beamLength: 4 }; // a shape, as adaptive drafting may decline
        const drafted = await run(model, prompt, { ...beams, maxTokens: 48, stop: ['\u2603', stop] });
        const plain = await run(model, prompt, { maxTokens: 48, stop, drafting: false });
        const { text, tokens } = cutAt(model, whole.tokenIds, stop);
        for (const { result, rest } of [drafted, plain]) {
          expect([stop, result.text, result.finishReason]).toEqual([stop, text, 'stop']);
          expect(result.tokenIds).toEqual(whole.tokenIds.slice(0, tokens));
          expect(rest).toEqual(plain.rest);
        }
        const last = drafted.chunks.at(-1);
        if (last !== undefined && last.accepted === last.tokenIds.length) insideDraft++; // no bonus token came
        if (!(model.tokenizer?.decode(drafted.result.tokenIds) ?? '').endsWith(stop)) insideToken++;
      }
    }
    expect(insideDraft).toBeGreaterThan(20);
    expect(insideToken).toBeGreaterThan(20);
  });
});

describe('characters of several bytes, a token each', () => {
  const paths = writeTinyModel(); // tokens are bytes, and random weights choose any of them
  let model: Model;
  beforeAll(async () => {
    model = await Model.load(paths.model, { drafter: paths.drafter, threads: 1 });
  });
  afterAll(() => model.dispose());

  const options = (seed: number): GenerateOptions => ({ maxTokens: 200, temperature: 1.5, seed, beamWidth: 4 });
  const decode = (ids: readonly number[]): string => model.tokenizer?.decode(ids) ?? '';
  /** Text that a program saw is the beginning of what there is to see: no byte of it is taken back later. */
  const expectBeginning = (seen: string, ids: readonly number[]): void => {
    expect(seen.isWellFormed()).toBe(true);
    expect(decode(ids).startsWith(seen)).toBe(true);
  };

  it('come whole, in every chunk, drafted or not, and after every abort and break', async () => {
    const random = new Random(5);
    let characters = 0;
    let held = 0;
    for (let seed = 0; seed < 20; seed++) {
      const { chunks, result } = await run(model, [1, 2], options(seed));
      const plain = await run(model, [1, 2], { ...options(seed), drafting: false });
      expect([result.text, result.tokenIds]).toEqual([plain.result.text, plain.result.tokenIds]);
      expect(result.text).toBe(decode(result.tokenIds));
      characters += result.text.match(/[\u0080-\ufffc]/gu)?.length ?? 0;
      let [seen, count] = ['', 0];
      for (const { text, tokenIds } of chunks) {
        [seen, count] = [seen + text, count + tokenIds.length];
        expectBeginning(seen, result.tokenIds);
        if (tokenIds.length === 0) continue; // the end, where an unfinished character becomes U+FFFD
        // Whatever bytes come next, what was given out stays.
        const ids = result.tokenIds.slice(0, count);
        for (const next of [0x41, 0x80, 0xbf, 0xe2]) expect(decode([...ids, next]).startsWith(seen)).toBe(true);
        if (decode(ids) !== seen) held++;
      }

      const leaveAt = random.integer(1, 60);
      const left = await model.createSession();
      [seen, count] = ['', 0];
      for await (const chunk of left.generate([1, 2], options(seed))) {
        seen += chunk.text;
        if (++count === leaveAt) break;
      }
      expectBeginning(seen, [...left.tokenIds].slice(2));
      await left.dispose();

      const aborted = await model.createSession();
      const generation = aborted.generate([1, 2], options(seed));
      count = 0;
      for await (const chunk of generation) if (chunk.text !== '' && ++count === leaveAt) generation.abort();
      const { text, tokenIds } = await generation.result();
      expect(text).toBe(decode(tokenIds));
      await aborted.dispose();
    }
    expect(characters).toBeGreaterThan(50);
    expect(held).toBeGreaterThan(20);
  });

  it('are found by stop strings, whole and as neighbours', async () => {
    let found = 0;
    for (let seed = 0; seed < 20; seed++) {
      const whole = (await run(model, [1, 2], options(seed))).result;
      for (const match of whole.text.matchAll(/.?[\u0080-\ufffc].?/gsu)) {
        const [stop] = match;
        const { result } = await run(model, [1, 2], { ...options(seed), stop });
        const plain = await run(model, [1, 2], { ...options(seed), stop, drafting: false });
        const { text, tokens } = cutAt(model, whole.tokenIds, stop);
        expect([result.text, result.tokenIds]).toEqual([text, whole.tokenIds.slice(0, tokens)]);
        expect([plain.result.text, plain.result.tokenIds]).toEqual([result.text, result.tokenIds]);
        found++;
      }
    }
    expect(found).toBeGreaterThan(20);
  });
});
