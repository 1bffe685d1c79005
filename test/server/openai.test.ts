/** The official client of OpenAI's API works against the server, unchanged. */
import OpenAI from 'openai';
import { beforeAll, describe, expect, it } from 'vitest';

import { allFree, loadTiny, NAME, start, until, type Running } from './kit.js';

const KEY = 'secret';
const messages = [{ role: 'user' as const, content: 'hello' }];
/** A field of ours, which the client passes on. */
const ENDLESS = { ignore_eos: true } as object;

let tiny: Running;
let openai: OpenAI;
beforeAll(async () => {
  tiny = await start(await loadTiny({ maxActiveRequests: 1 }), { apiKey: KEY });
  openai = new OpenAI({ baseURL: `${tiny.url}/v1`, apiKey: KEY, maxRetries: 0 });
});

describe('the openai client', () => {
  it('lists models', async () => {
    const names = [];
    for await (const model of openai.models.list()) names.push(model.id);
    expect(names).toEqual([NAME]);
    expect((await openai.models.retrieve(NAME)).id).toBe(NAME);
  });

  it('chats, whole and as a stream, with the same result', async () => {
    const body = { model: NAME, messages, seed: 3, max_completion_tokens: 40, logprobs: true, top_logprobs: 1 };
    const whole = await openai.chat.completions.create(body);
    expect(whole.usage?.completion_tokens).toBeGreaterThan(0);
    expect(whole._request_id).toMatch(/^[\da-f-]{36}$/);
    const stream = openai.chat.completions.stream({ ...body, stream_options: { include_usage: true } });
    let text = '';
    stream.on('content', (delta) => (text += delta));
    const final = await stream.finalChatCompletion();
    const [a, b] = [whole.choices[0], final.choices[0]];
    expect(text).toBe(a?.message.content);
    expect([b?.message.content, b?.finish_reason]).toEqual([a?.message.content, a?.finish_reason]);
    expect(b?.logprobs?.content).toEqual(a?.logprobs?.content);
    expect(final.usage).toMatchObject({ completion_tokens: whole.usage?.completion_tokens });
  });

  it('completes, whole and as a stream, with the same result', async () => {
    const body = { model: NAME, prompt: 'hello', seed: 3, max_tokens: 40, logprobs: 2 };
    const whole = await openai.completions.create(body);
    let text = '';
    for await (const part of await openai.completions.create({ ...body, stream: true }))
      text += part.choices[0]?.text ?? '';
    expect(text).toBe(whole.choices[0]?.text);
    expect(whole.choices[0]?.logprobs?.tokens).toHaveLength(whole.usage?.completion_tokens ?? 0);
  });

  it('aborts a stream by leaving it and by its controller, and a request by a signal', async () => {
    const body = { model: NAME, messages, max_completion_tokens: 4000, ...ENDLESS };
    for await (const part of await openai.chat.completions.create({ ...body, stream: true })) {
      if (part.choices[0]?.delta.content !== '') break;
    }
    await until(() => allFree(tiny.model));
    const stream = await openai.chat.completions.create({ ...body, stream: true });
    setTimeout(() => {
      stream.controller.abort();
    }, 20);
    for await (const part of stream) expect(part.object).toBe('chat.completion.chunk');
    await until(() => allFree(tiny.model));
    const request = openai.chat.completions.create(body, { signal: AbortSignal.timeout(30) });
    await expect(request).rejects.toBeInstanceOf(OpenAI.APIUserAbortError);
    await until(() => allFree(tiny.model));
  });

  it('sees errors as what they are', async () => {
    const create = (body: object): Promise<unknown> =>
      openai.chat.completions.create({ model: NAME, messages, ...body });
    await expect(create({ n: 200 })).rejects.toMatchObject({ status: 400, code: 'ERR_INVALID_ARGUMENT', param: 'n' });
    await expect(create({ n: 200 })).rejects.toBeInstanceOf(OpenAI.BadRequestError);
    await expect(create({ model: 'gpt' })).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    const stranger = new OpenAI({ baseURL: `${tiny.url}/v1`, apiKey: 'wrong', maxRetries: 0 });
    await expect(stranger.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
  });

  it('comes again when there was no room', async () => {
    const server = await start(await loadTiny({ maxActiveRequests: 1, maxQueuedRequests: 1 }));
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'any', maxRetries: 0 });
    const long = { model: NAME, messages, max_completion_tokens: 4000, stream: true as const, ...ENDLESS };
    const busy = await client.chat.completions.create(long);
    const waits = client.chat.completions.create(long);
    await until(() => server.model.queueUsage().waitingRequests === 1);
    const short = { model: NAME, messages, max_completion_tokens: 2 };
    await expect(client.chat.completions.create(short)).rejects.toBeInstanceOf(OpenAI.RateLimitError);
    const again = client.chat.completions.create(short, { maxRetries: 5 });
    setTimeout(() => {
      busy.controller.abort();
      void waits.then(({ controller }) => {
        controller.abort();
      });
    }, 100);
    expect((await again).choices).toHaveLength(1);
  });

  it('gets an error out of a stream that fails', async () => {
    const server = await start(await loadTiny(), { requestTimeoutMs: 30 });
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'any', maxRetries: 0 });
    const read = async (): Promise<void> => {
      const stream = await client.chat.completions.create({
        model: NAME,
        messages,
        max_completion_tokens: 4000,
        stream: true,
        ...ENDLESS,
      });
      for await (const part of stream) expect(part.choices).toHaveLength(1);
    };
    await expect(read()).rejects.toMatchObject({ code: 'request_timeout' });
  });
});
