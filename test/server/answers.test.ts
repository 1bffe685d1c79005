/** What the server answers is what the session generates. */
import { beforeAll, describe, expect, it } from 'vitest';

import type { GenerationResult } from '../../lib/generation.js';
import type { GenerateOptions } from '../../lib/option-types.js';
import { createServer } from '../../lib/server/server.js';
import type { SessionInput } from '../../lib/session.js';
import { bundled, prompts, trainedDrafters } from '../kit/bundled.js';
import { events, type Failure, json, loadTiny, NAME, post, start, type Running } from './kit.js';

interface Choice {
  index: number;
  text?: string;
  message?: { role: string; content: string };
  delta?: { role?: string; content?: string };
  logprobs: null | { tokens?: string[]; token_logprobs?: number[]; content?: { logprob: number; bytes: number[] }[] };
  finish_reason: string | null;
  token_ids?: number[];
}

interface Body {
  id: string;
  object: string;
  model: string;
  choices: Choice[];
  usage: null | {
    prompt_tokens: number;
    completion_tokens: number;
    total_tokens: number;
    prompt_tokens_details: { cached_tokens: number };
    redrafter: Record<string, unknown> & { seed: string; tokens_per_step: number };
  };
}

let tiny: Running;
beforeAll(async () => {
  tiny = await start(await loadTiny());
});

async function direct(input: SessionInput, options: GenerateOptions, { model } = tiny): Promise<GenerationResult> {
  await using session = await model.createSession();
  return await session.generate(input, options).result();
}

async function ask(path: string, body: object, { url } = tiny): Promise<Body> {
  const response = await post(url, path, { model: NAME, return_token_ids: true, ...body });
  expect(response.status).toBe(200);
  return json<Body>(response);
}

/** The parts of a stream, put together as a client does. */
async function streamed(path: string, body: object, { url } = tiny): Promise<Choice & { events: Body[] }> {
  const whole = { model: NAME, return_token_ids: true, stream: true, stream_options: { include_usage: true }, ...body };
  const response = await post(url, path, whole);
  expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
  const list = await events(response);
  expect(list.pop()).toBe('[DONE]');
  const parts = list as Body[];
  const choices = parts.flatMap(({ choices }) => choices);
  return {
    index: 0,
    text: choices.map(({ text, delta }) => text ?? delta?.content ?? '').join(''),
    finish_reason: choices.at(-1)?.finish_reason ?? null,
    token_ids: choices.flatMap((choice) => choice.token_ids ?? []),
    logprobs: {
      tokens: choices.flatMap(({ logprobs }) => logprobs?.tokens ?? []),
      token_logprobs: choices.flatMap(({ logprobs }) => logprobs?.token_logprobs ?? []),
      content: choices.flatMap(({ logprobs }) => logprobs?.content ?? []),
    },
    events: parts,
  };
}

describe('beginnings of prompts that others had', () => {
  const prompt = 'a beginning of more than four blocks of sixteen bytes, then something else: ';
  const cached = async (url: string, body: object): Promise<number | undefined> => {
    const response = await post(url, '/v1/completions', { model: NAME, max_tokens: 2, ...body });
    return (await json<Body>(response)).usage?.prompt_tokens_details.cached_tokens;
  };

  it.each([
    { prefixSharing: undefined, expected: [0, 0, 0, 0, 0] },
    { prefixSharing: 'none', expected: [0, 0, 0, 0, 0] },
    { prefixSharing: 'key', expected: [0, 64, 0, 0, 0] },
    { prefixSharing: 'all', expected: [0, 64, 64, 64, 64] },
  ] as const)('are reused as the server says: $prefixSharing', async ({ prefixSharing, expected }) => {
    const own = await loadTiny();
    const { url } = await start(own, prefixSharing === undefined ? {} : { prefixSharing });
    const bodies = ['a', 'a', 'b', '', undefined].map((key, i) => ({
      prompt: `${prompt}${i}`,
      ...(key === undefined ? {} : { prompt_cache_key: key }),
    }));
    const got: unknown[] = [];
    for (const body of bodies) got.push(await cached(url, body));
    expect(got).toEqual(expected);
    const { sessions, usedBytes } = own.kvUsage();
    expect([sessions, usedBytes]).toEqual([0, 0]);
    // What the program of the server does under such a key is its own.
    const session = await own.createSession({ prefixKey: 'a' });
    expect((await session.generate(prompt, { maxTokens: 1 }).result()).stats.reusedTokens).toBe(0);
  });

  it('a key that cannot be one is refused, where it means something', async () => {
    const own = await loadTiny();
    const { url } = await start(own, { prefixSharing: 'key' });
    for (const prompt_cache_key of [5, 'x'.repeat(513), '\ud800']) {
      const response = await post(url, '/v1/completions', { model: NAME, prompt, prompt_cache_key });
      expect([response.status, (await json<Failure>(response)).error.param]).toEqual([400, 'prompt_cache_key']);
    }
    expect(() => createServer(own, { modelName: NAME, prefixSharing: 'some' as never })).toThrow(/prefixSharing/);
  });
});

describe('answers beyond the context', () => {
  it('end with length, or slide as the server says', async () => {
    const own = await loadTiny({ contextTokens: 64 });
    const body = { prompt: 'hello', max_tokens: 64, ignore_eos: true, temperature: 0 };
    const cut = only(await ask('/v1/completions', body, await start(own)));
    expect(cut.finish_reason).toBe('length');
    expect(cut.token_ids?.length).toBeLessThan(64);
    const contextPolicy = { slide: true, keepTokens: 5 } as const;
    const slid = only(await ask('/v1/completions', body, await start(own, { contextPolicy })));
    const { tokenIds } = await direct(
      'hello',
      { maxTokens: 64, ignoreEos: true, contextPolicy },
      { ...tiny, model: own },
    );
    expect(slid.token_ids).toEqual(tokenIds);
    expect(tokenIds).toHaveLength(64);
    const wrong = createServer(own, { modelName: NAME, contextPolicy: { slide: true, keepTokens: 63 } });
    await expect(wrong.ready).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  });
});

const only = ({ choices }: Body): Choice => choices[0] as Choice;
const finish = (reason: string): string => (reason === 'length' ? 'length' : 'stop');

describe('/v1/completions', () => {
  const cases: [name: string, body: object, options: GenerateOptions][] = [
    ['greedy', { temperature: 0, max_tokens: 40 }, { maxTokens: 40 }],
    ['seeded', { temperature: 1, seed: 7, max_tokens: 40 }, { temperature: 1, seed: 7, maxTokens: 40 }],
    ['a 64-bit seed', { seed: '18446744073709551615' }, { temperature: 1, seed: 2n ** 64n - 1n, maxTokens: 16 }],
    [
      'every filter',
      { temperature: 0.8, seed: 3, top_p: 0.9, top_k: 50, min_p: 0.01, max_tokens: 60, ignore_eos: true },
      { temperature: 0.8, seed: 3, topP: 0.9, topK: 50, minP: 0.01, maxTokens: 60, ignoreEos: true },
    ],
    [
      'stop strings',
      { seed: 5, stop: ['e', 'a'], max_tokens: 400 },
      { temperature: 1, seed: 5, stop: ['e', 'a'], maxTokens: 400 },
    ],
    ['defaults', { seed: 1 }, { temperature: 1, seed: 1, maxTokens: 16 }],
  ];

  it.each(cases)('%s: the ids and text of session.generate, streamed or not', async (_, body, options) => {
    // With a shape that is given, so that rounds can be compared: a chosen one depends on timing.
    const expected = await direct('hello w', { ...options, beamWidth: 1, beamLength: 4 });
    const request = { prompt: 'hello w', redrafter: { beam_width: 1, beam_length: 4 }, ...body };
    const whole = await ask('/v1/completions', request);
    expect(only(whole)).toEqual({
      index: 0,
      text: expected.text,
      logprobs: null,
      finish_reason: finish(expected.finishReason),
      token_ids: expected.tokenIds,
    });
    expect(whole.usage).toMatchObject({
      prompt_tokens: expected.stats.promptTokens,
      completion_tokens: expected.tokenIds.length,
      total_tokens: expected.stats.promptTokens + expected.tokenIds.length,
      prompt_tokens_details: { cached_tokens: 0 },
    });
    // What was decoded before a stop string was seen depends on timing, so the rounds do.
    if (options.stop === undefined) {
      const { tokensPerStep, rounds, draftedNodes } = expected.stats;
      expect(whole.usage?.redrafter).toMatchObject({
        tokens_per_step: tokensPerStep,
        rounds,
        drafted_nodes: draftedNodes,
      });
    }
    const parts = await streamed('/v1/completions', request);
    expect(parts).toMatchObject({
      text: expected.text,
      token_ids: expected.tokenIds,
      finish_reason: finish(expected.finishReason),
    });
    expect(parts.events.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: expected.tokenIds.length } });
    expect(parts.events.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
  });

  it('takes token ids, and lists of one prompt', async () => {
    const expected = await direct('hello', { maxTokens: 10 });
    const ids = [...(tiny.model.tokenizer?.encode('hello') ?? [])];
    for (const prompt of ['hello', ids, ['hello'], [ids]]) {
      expect(only(await ask('/v1/completions', { prompt, temperature: 0, max_tokens: 10 })).token_ids).toEqual(
        expected.tokenIds,
      );
    }
  });

  it('returns the seed that it chose, and that seed repeats the answer', async () => {
    const first = await ask('/v1/completions', { prompt: 'x', max_tokens: 30 });
    const seed = first.usage?.redrafter.seed;
    expect(seed).toMatch(/^\d+$/);
    const again = await ask('/v1/completions', { prompt: 'x', max_tokens: 30, seed });
    expect(only(again)).toEqual(only(first));
    const other = await ask('/v1/completions', { prompt: 'x', max_tokens: 30 });
    expect(only(other).token_ids).not.toEqual(only(first).token_ids);
  });

  it('lists log-probabilities of the library, streamed or not', async () => {
    const options = { maxTokens: 30, logprobs: 3, ignoreEos: true };
    const expected = await direct('hello', options);
    const body = { prompt: 'hello', temperature: 0, max_tokens: 30, logprobs: 3, ignore_eos: true };
    const { logprobs } = only(await ask('/v1/completions', body));
    expect(logprobs?.token_logprobs).toEqual(expected.logprobs?.map(({ logprob }) => logprob));
    expect(logprobs?.tokens).toHaveLength(30);
    const parts = await streamed('/v1/completions', body);
    expect([parts.logprobs?.tokens, parts.logprobs?.token_logprobs]).toEqual([
      logprobs?.tokens,
      logprobs?.token_logprobs,
    ]);
  });

  it('drafts as the request says, which changes the steps and not the answer', async () => {
    const body = { prompt: prompts[0]?.text ?? '', seed: 9, max_tokens: 60 };
    const real = await start(await loadTiny({ drafter: trainedDrafters.gru }, bundled));
    const drafted = await ask('/v1/completions', { ...body, redrafter: { beam_width: 2, beam_length: 4 } }, real);
    const plain = await ask('/v1/completions', { ...body, redrafter: { drafting: false } }, real);
    expect(only(drafted)).toEqual(only(plain));
    expect(plain.usage?.redrafter).toMatchObject({ tokens_per_step: 1, drafted_nodes: 0 });
    expect(drafted.usage?.redrafter.tokens_per_step).toBeGreaterThan(1);
  });
});

describe('/v1/chat/completions', () => {
  const messages = [
    { role: 'system', content: 'be brief' },
    { role: 'user', content: 'hello' },
  ];

  it('gives the ids and text of session.generate, streamed or not', async () => {
    const expected = await direct(messages, { temperature: 1, seed: 4, maxTokens: 50 });
    const body = { messages, seed: 4, max_completion_tokens: 50 };
    const whole = await ask('/v1/chat/completions', body);
    expect(whole.object).toBe('chat.completion');
    expect(only(whole)).toMatchObject({
      message: { role: 'assistant', content: expected.text },
      finish_reason: finish(expected.finishReason),
      token_ids: expected.tokenIds,
    });
    const parts = await streamed('/v1/chat/completions', body);
    expect(parts).toMatchObject({
      text: expected.text,
      token_ids: expected.tokenIds,
      finish_reason: finish(expected.finishReason),
    });
    expect(parts.events[0]?.choices[0]?.delta).toEqual({ role: 'assistant', content: '' });
    expect(new Set(parts.events.map(({ id, object }) => `${id} ${object}`)).size).toBe(1);
  });

  it('takes text parts, the role developer, and what it answered before', async () => {
    const plain = await ask('/v1/chat/completions', {
      messages: [...messages, { role: 'assistant', content: 'hi' }],
      seed: 1,
      max_tokens: 9,
    });
    const rich = [
      {
        role: 'developer',
        content: [
          { type: 'text', text: 'be ' },
          { type: 'text', text: 'brief' },
        ],
      },
      { role: 'user', content: 'hello' },
      { role: 'assistant', content: 'hi', refusal: null, tool_calls: [], annotations: [] },
    ];
    expect(only(await ask('/v1/chat/completions', { messages: rich, seed: 1, max_tokens: 9 }))).toEqual(only(plain));
  });

  it('lists log-probabilities with bytes that spell the text', async () => {
    const body = { messages, seed: 2, max_tokens: 60, logprobs: true, top_logprobs: 2, ignore_eos: true };
    const expected = await direct(messages, { temperature: 1, seed: 2, maxTokens: 60, logprobs: 2, ignoreEos: true });
    const choice = only(await ask('/v1/chat/completions', body));
    const listed = choice.logprobs?.content ?? [];
    expect(listed.map(({ logprob }) => logprob)).toEqual(expected.logprobs?.map(({ logprob }) => logprob));
    expect((await streamed('/v1/chat/completions', body)).logprobs?.content).toEqual(listed);
    const plain = listed.filter((_, i) => expected.tokenIds[i] !== 258); // the special token is not part of the text
    expect(new TextDecoder().decode(Uint8Array.from(plain.flatMap(({ bytes }) => bytes)))).toBe(expected.text);
  });

  it('keeps special tokens written in messages as plain text', async () => {
    const body = { messages: [{ role: 'user', content: '<|end|>' }], max_tokens: 1 };
    const { usage } = await ask('/v1/chat/completions', body);
    expect(usage?.prompt_tokens).toBeGreaterThan('[user]<|end|>'.length - 2);
  });

  it('fills the context when no limit is given', async () => {
    const small = await start(await loadTiny({ contextTokens: 64 }));
    const { usage, choices } = await ask('/v1/chat/completions', { messages, ignore_eos: true }, small);
    expect([usage?.total_tokens, choices[0]?.finish_reason]).toEqual([64, 'length']);
  });

  it('fills the KV cache when no limit is given and the context is larger', async () => {
    const small = await start(await loadTiny({ contextTokens: 256, kvTokens: 64 }));
    const { usage, choices } = await ask('/v1/chat/completions', { messages, ignore_eos: true }, small);
    expect([usage?.total_tokens, choices[0]?.finish_reason]).toEqual([64, 'length']);
  });
});

it('/v1/models lists the model, and /health says that the engine answers', async () => {
  const list = await json<{ data: { id: string; max_model_len: number }[] }>(await fetch(`${tiny.url}/v1/models`));
  expect(list.data).toMatchObject([{ id: NAME, object: 'model', max_model_len: 4096 }]);
  expect(await json(await fetch(`${tiny.url}/v1/models/${NAME}`))).toEqual(list.data[0]);
  expect((await fetch(`${tiny.url}/v1/models/other`)).status).toBe(404);
  const health = await fetch(`${tiny.url}/health`);
  expect([health.status, await health.json()]).toEqual([200, { status: 'ok' }]);
});

it('/metrics agrees with the statistics of the model', async () => {
  const text = await (await fetch(`${tiny.url}/metrics`)).text();
  const value = (name: string): number => Number(new RegExp(`^redrafter_${name} (\\S+)$`, 'm').exec(text)?.[1]);
  const { tokens, rounds, promptTokens } = tiny.model.stats;
  expect([value('generated_tokens_total'), value('rounds_total'), value('prompt_tokens_total')]).toEqual([
    tokens,
    rounds,
    promptTokens,
  ]);
  expect(tokens).toBeGreaterThan(100);
  expect(text).toMatch(/^redrafter_requests_total\{route="\/v1\/completions",status="200",code=""\} [1-9]/m);
  for (const line of text.trimEnd().split('\n'))
    expect(line).toMatch(/^(# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"]*",?)+\})? \d+(\.\d+)?(e[+-]\d+)?)$/);
});
