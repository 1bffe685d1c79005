/** Several choices, and the fields that change what may be chosen: what the library gives for the same. */
import OpenAI from 'openai';
import { beforeAll, describe, expect, it } from 'vitest';

import type { GenerationResult } from '../../lib/generation.js';
import type { GenerateOptions } from '../../lib/option-types.js';
import { allFree, events, json, loadTiny, LONG, NAME, post, start, until, type Running } from './kit.js';

interface Choice {
  index: number;
  text?: string;
  delta?: { role?: string; content?: string };
  message?: { content: string };
  finish_reason: string | null;
  token_ids: number[];
  logprobs: { tokens: string[]; token_logprobs: number[]; text_offset: number[] } | null;
}

interface Body {
  choices: Choice[];
  usage: null | {
    prompt_tokens: number;
    completion_tokens: number;
    total_tokens: number;
    prompt_tokens_details: { cached_tokens: number };
    redrafter: { seed: string; rounds: number; time_to_first_token_ms: number; prefill_ms: number };
  };
}

let tiny: Running;
beforeAll(async () => {
  tiny = await start(await loadTiny());
});

async function direct(input: string, options: GenerateOptions): Promise<GenerationResult> {
  await using session = await tiny.model.createSession();
  return await session.generate(input, options).result();
}

const body = { model: NAME, prompt: 'hello w', return_token_ids: true, seed: 7, max_tokens: 30 };
const sampled = { temperature: 1, maxTokens: 30 };

async function ask(path: string, given: object): Promise<Body> {
  const response = await post(tiny.url, path, given);
  expect(response.status).toBe(200);
  return json<Body>(response);
}

describe('n', () => {
  it('choice i is what the seed seed + i gives, whole', async () => {
    const expected = await Promise.all([7, 8, 9].map((seed) => direct('hello w', { ...sampled, seed, logprobs: 1 })));
    const { choices, usage } = await ask('/v1/completions', { ...body, n: 3, logprobs: 1 });
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(choices.map(({ text }) => text)).toEqual(expected.map(({ text }) => text));
    expect(choices.map(({ token_ids: ids }) => ids)).toEqual(expected.map(({ tokenIds }) => tokenIds));
    expect(new Set(choices.map(({ text }) => text)).size).toBe(3);
    choices.forEach(({ logprobs }, i) => {
      expect(logprobs?.token_logprobs).toEqual(expected[i]?.logprobs?.map(({ logprob }) => logprob));
      expect(logprobs?.text_offset[0]).toBe(0);
    });
    const completion = expected.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
    expect(usage).toMatchObject({
      prompt_tokens: expected[0]?.stats.promptTokens,
      completion_tokens: completion,
      total_tokens: completion + (expected[0]?.stats.promptTokens ?? 0),
    });
    expect(usage?.redrafter.seed).toBe('7');
    expect(usage?.redrafter.time_to_first_token_ms).toBeGreaterThan(0);
    await until(() => allFree(tiny.model));
  });

  it.each([
    ['/v1/completions', body],
    ['/v1/chat/completions', { ...body, prompt: null, messages: [{ role: 'user', content: 'hi' }] }],
  ])('%s streams the choices that it gives whole', async (path, given) => {
    const whole = await ask(path, { ...given, n: 3 });
    const streaming = { ...given, n: 3, stream: true, stream_options: { include_usage: true } };
    const list = (await events(await post(tiny.url, path, streaming))) as (Body | string)[];
    expect(list.pop()).toBe('[DONE]');
    const parts = list as Body[];
    const last = parts.pop();
    expect(last).toMatchObject({ choices: [], usage: { completion_tokens: whole.usage?.completion_tokens } });
    for (const { index, text, message, finish_reason: reason, token_ids: ids } of whole.choices) {
      const own = parts.flatMap(({ choices }) => choices).filter((choice) => choice.index === index);
      const put = own.map((choice) => choice.text ?? choice.delta?.content ?? '').join('');
      expect(put).toBe(text ?? message?.content);
      expect(own.flatMap(({ token_ids: some }) => some)).toEqual(ids);
      expect(own.map(({ finish_reason: each }) => each).filter((each) => each !== null)).toEqual([reason]);
      expect(own.at(-1)?.finish_reason).toBe(reason);
    }
    await until(() => allFree(tiny.model));
  });

  it('ends all choices when the client goes away or time is up', async () => {
    const controller = new AbortController();
    const long = { ...LONG, n: 4, temperature: 1, stream: true };
    const response = await post(tiny.url, '/v1/completions', long, { signal: controller.signal });
    await response.body?.getReader().read();
    controller.abort();
    await until(() => allFree(tiny.model));
    const hurried = await start(tiny.model, { requestTimeoutMs: 50 });
    expect((await post(hurried.url, '/v1/completions', { ...long, stream: false })).status).toBe(504);
    const list = await events(await post(hurried.url, '/v1/completions', long));
    expect(list.at(-1)).toMatchObject({ error: { code: 'request_timeout' } });
    const finished = (list.slice(0, -1) as Body[]).flatMap(({ choices }) => choices).filter((c) => c.finish_reason);
    expect(finished).toEqual([]);
    await until(() => allFree(tiny.model));
  });

  it('tells how much of the prompt was there already', async () => {
    const shared = await start(await loadTiny(), { prefixSharing: 'key' });
    const cached = async (key: string, n: number): Promise<unknown> => {
      const given = { ...body, prompt: 'x'.repeat(100), prompt_cache_key: key, n, max_tokens: 4 };
      const { usage } = await json<Body>(await post(shared.url, '/v1/completions', given));
      return usage?.prompt_tokens_details.cached_tokens;
    };
    expect(await cached('a', 3)).toBe(0);
    expect(await cached('a', 1)).toBe(96);
    expect(await cached('a', 3)).toBe(96);
    expect(await cached('b', 2)).toBe(0);
    expect(await cached('b', 2)).toBe(96);
    expect(await cached('c', 1)).toBe(0);
  });

  it('is at most what the server says', async () => {
    const one = await start(tiny.model, { maxChoices: 2 });
    expect((await post(one.url, '/v1/completions', { ...body, n: 3 })).status).toBe(400);
    expect((await post(one.url, '/v1/completions', { ...body, n: 2, max_tokens: 1 })).status).toBe(200);
  });

  it('is what the client of OpenAI takes', async () => {
    const openai = new OpenAI({ baseURL: `${tiny.url}/v1`, apiKey: 'none' });
    const request = { model: NAME, messages: [{ role: 'user' as const, content: 'hi' }], max_tokens: 8, seed: 3, n: 2 };
    const { choices } = await openai.chat.completions.create(request);
    const streamed = ['', ''];
    for await (const part of await openai.chat.completions.create({ ...request, stream: true }))
      for (const { index, delta } of part.choices) streamed[index] = (streamed[index] ?? '') + (delta.content ?? '');
    expect(streamed).toEqual(choices.map(({ message }) => message.content));
  });
});

describe('control', () => {
  const SCHEMA = {
    type: 'object',
    properties: { a: { type: 'string', maxLength: 5 }, b: { type: 'integer' } },
    required: ['b'],
  };
  const cases: [field: string, fields: object, options: GenerateOptions][] = [
    ['presence_penalty', { presence_penalty: 1.5 }, { presencePenalty: 1.5 }],
    ['frequency_penalty', { frequency_penalty: -1.5 }, { frequencyPenalty: -1.5 }],
    ['repetition_penalty', { repetition_penalty: 1.4 }, { repetitionPenalty: 1.4 }],
    ['logit_bias', { logit_bias: { 40: 100, 41: 99.5 } }, { logitBias: { 40: 100, 41: 99.5 } }],
    ['banned_token_ids', { logit_bias: { 40: 100 }, banned_token_ids: [40] }, { logitBias: { 40: 100 }, bannedTokenIds: [40] }], // prettier-ignore
    [
      'response_format',
      { response_format: { type: 'json_object' } },
      { grammar: { type: 'json_schema', schema: { type: 'object' } } },
    ],
    ['json_schema', { response_format: { type: 'json_schema', json_schema: { name: 'x', strict: true, schema: SCHEMA } } }, { grammar: { type: 'json_schema', schema: SCHEMA } }], // prettier-ignore
    ['min_tokens', { min_tokens: 30, logit_bias: { 1: 100 } }, { minTokens: 30, logitBias: { 1: 100 } }],
  ];
  it.each(cases)('%s is the option of the library', async (_, fields, options) => {
    const expected = await direct('hello w', { ...sampled, ...options, seed: 7 });
    const { choices } = await ask('/v1/completions', { ...body, ...fields });
    expect(choices[0]).toMatchObject({ text: expected.text, token_ids: expected.tokenIds });
    const { choices: drafted } = await ask('/v1/completions', { ...body, ...fields, redrafter: { beam_width: 12 } });
    expect(drafted[0]?.token_ids).toEqual(expected.tokenIds);
    const plain = await direct('hello w', { ...sampled, seed: 7 });
    expect(expected.tokenIds).not.toEqual(plain.tokenIds);
  });
});
