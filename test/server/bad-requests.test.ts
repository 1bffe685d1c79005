/** Everything wrong with a request gets a status and a code, and the server goes on. */
import { afterEach, beforeAll, describe, expect, it } from 'vitest';

import { allFree, json, loadTiny, NAME, paths, post, Raw, start, until, type Failure, type Running } from './kit.js';

const COMPLETIONS = '/v1/completions';
const CHAT = '/v1/chat/completions';
const good = { model: NAME, prompt: 'hello', max_tokens: 2 };
const chat = { model: NAME, messages: [{ role: 'user', content: 'hello' }], max_tokens: 2 };

let tiny: Running;
beforeAll(async () => {
  tiny = await start(await loadTiny(), { bodyLimit: 100_000 });
});
afterEach(async () => {
  expect((await post(tiny.url, COMPLETIONS, good)).status).toBe(200);
  await until(() => allFree(tiny.model));
});

async function refused(path: string, body: unknown, init?: RequestInit): Promise<[number, string, string | null]> {
  const response = await post(tiny.url, path, body, init);
  const { error } = await json<Failure>(response);
  expect(Object.keys(error)).toEqual(['message', 'type', 'param', 'code']);
  expect(error.message).not.toBe('');
  return [response.status, error.code, error.param];
}

const WRONG = 'ERR_INVALID_ARGUMENT';

describe('bodies', () => {
  const deep = 40_000;
  it.each([
    ['empty', ''],
    ['not JSON', '{"model":'],
    ['an array', '[]'],
    ['null', 'null'],
    ['deeply nested', `{"model":${'['.repeat(deep)}${']'.repeat(deep)}}`],
    ['a refused field of deep nesting', `{"model":"${NAME}","response_format":${'['.repeat(deep)}${']'.repeat(deep)}}`],
    ['unknown fields of deep nesting', `{"model":"${NAME}","x":${'{"a":'.repeat(9000)}1${'}'.repeat(9000)}}`],
    ['a __proto__ key', `{"model":"${NAME}","prompt":"a","__proto__":{"n":1}}`],
    ['a constructor key', `{"model":"${NAME}","prompt":"a","constructor":{"prototype":{"n":1}}}`],
  ])('%s: 400', async (_, body) => {
    expect((await refused(COMPLETIONS, body)).slice(0, 2)).toEqual([400, WRONG]);
    expect(({} as { n?: number }).n).toBeUndefined();
  });

  it('bytes that are not UTF-8: 400', async () => {
    const body = new Uint8Array([...Buffer.from('{"model":"'), 0xff, ...Buffer.from('"}')]);
    const init = { method: 'POST', body, headers: { 'content-type': 'application/json' } };
    expect((await fetch(tiny.url + COMPLETIONS, init)).status).toBe(400);
  });

  it('of another type: 415', async () => {
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/jsonp', '']) {
      const init = { headers: { 'content-type': type } };
      expect(await refused(COMPLETIONS, good, init)).toEqual([415, 'unsupported_media_type', null]);
    }
    const init = { headers: { 'content-encoding': 'gzip' } };
    expect(await refused(COMPLETIONS, good, init)).toEqual([415, 'unsupported_media_type', null]);
  });

  it('beyond the limit: 413, by their header and by what comes', async () => {
    expect(await refused(COMPLETIONS, { ...good, prompt: 'x'.repeat(100_000) })).toEqual([413, 'body_too_large', null]);
    const head = `POST ${COMPLETIONS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n`;
    const announced = new Raw(tiny.port).send(`${head}content-length: 100000000\r\n\r\n`);
    expect(await announced.status()).toBe(413);
    const chunked = new Raw(tiny.port).send(`${head}transfer-encoding: chunked\r\n\r\n`);
    const piece = `4000\r\n${'x'.repeat(0x4000)}\r\n`;
    const timer = setInterval(() => chunked.send(piece), 1);
    expect(await chunked.status()).toBe(413);
    await until(() => announced.closed && chunked.closed); // both are cut off, although they never end
    clearInterval(timer);
  });

  it('shorter or longer than their header says', async () => {
    const raw = new Raw(tiny.port);
    raw.send(
      `POST ${COMPLETIONS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{}`,
    );
    setTimeout(() => {
      raw.destroy();
    }, 50);
    await until(() => tiny.log.some(({ status, code }) => status === 499 && code !== undefined));
    const both = new Raw(tiny.port).send(
      `POST ${COMPLETIONS} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`,
    );
    expect(await both.status()).toBe(400);
    const long = new Raw(tiny.port).post(COMPLETIONS, '{}').send('garbage that is no request\r\n\r\n');
    await until(() => long.closed);
    expect(new Set(long.received.match(/HTTP\/1\.1 \d+/g))).toEqual(new Set(['HTTP/1.1 400']));
  });
});

describe('headers, methods and paths', () => {
  it('headers of 64 KB: 431', async () => {
    const raw = new Raw(tiny.port).send(`GET /health HTTP/1.1\r\nhost: localhost\r\nx: ${'x'.repeat(65_536)}\r\n\r\n`);
    expect(await raw.status()).toBe(431);
  });

  it('no host: 400', async () => {
    expect(await new Raw(tiny.port).send('GET /health HTTP/1.1\r\n\r\n').status()).toBe(400);
    expect(await new Raw(tiny.port).send('GET /health HTTP/1.0\r\n\r\n').status()).toBe(400);
  });

  it.each(['GET', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])('%s of a route that takes POST: 405', async (method) => {
    const response = await fetch(tiny.url + CHAT, { method });
    expect([response.status, response.headers.get('allow')]).toEqual([405, 'POST']);
    expect([...response.headers.keys()].filter((name) => name.startsWith('access-control'))).toEqual([]);
  });

  it.each([
    '/',
    '/v1',
    '/v1/completions/',
    '/slots',
    '/v1/embeddings',
    '/%2e%2e/%2e%2e/etc/passwd',
    '/v1/models/%2e%2e%2f',
  ])('%s: 404', async (path) => {
    const raw = new Raw(tiny.port).send(`GET ${path} HTTP/1.1\r\nhost: localhost\r\n\r\n`);
    expect(await raw.status()).toBe(404);
  });

  it.each(['nonsense', '/\\', 'http://[/', '*'])('target %s: 4xx', async (target) => {
    const status = await new Raw(tiny.port).send(`GET ${target} HTTP/1.1\r\nhost: localhost\r\n\r\n`).status();
    expect(status).toBeGreaterThanOrEqual(400);
    expect(status).toBeLessThan(500);
  });
});

describe('fields', () => {
  const both: [field: string, value: unknown][] = [
    ['n', 9],
    ['n', 1e6],
    ['n', 0],
    ['best_of', 2],
    ['max_tokens', -1],
    ['max_tokens', 0],
    ['max_tokens', 1e12],
    ['max_tokens', 1.5],
    ['max_tokens', '5'],
    ['temperature', -0.1],
    ['temperature', 2.1],
    ['temperature', '1'],
    ['top_p', 0],
    ['top_p', 1.1],
    ['top_k', -1],
    ['min_p', 1],
    ['seed', -1],
    ['seed', 1.5],
    ['seed', 2 ** 53],
    ['seed', '18446744073709551616'],
    ['seed', 'x'],
    ['stop', ''],
    ['stop', ['']],
    ['stop', [1]],
    ['stop', Array(65).fill('x')],
    ['stop', 'x'.repeat(1025)],
    ['stream', 1],
    ['stream_options', { include_usage: true }],
    ['presence_penalty', 2.5],
    ['frequency_penalty', -3],
    ['repetition_penalty', 0],
    ['logit_bias', { 5: 101 }],
    ['logit_bias', { x: 1 }],
    ['logit_bias', [1]],
    ['banned_token_ids', [-1]],
    ['banned_token_ids', 5],
    ['min_tokens', -1],
    ['response_format', 'json_object'],
    ['response_format', { type: 'xml' }],
    ['response_format', { type: 'json_object', json_schema: {} }],
    ['response_format', { type: 'json_schema' }],
    ['response_format', { type: 'json_schema', json_schema: { name: 'x', schema: { not: {} } } }],
    ['response_format', { type: 'json_schema', json_schema: { name: 'x', schema: 5 } }],
    ['tools', [{ type: 'function', function: { name: 'f' } }]],
    ['chat_template', '{{ x }}'],
    ['chat_template_kwargs', {}],
    ['prompt_embeds', 'AAAA'],
    ['ignore_eos', 'yes'],
    ['redrafter', true],
    ['redrafter', { beam_width: 65 }],
    ['redrafter', { beams: 1 }],
    ['redrafter', { priority: 11 }],
    ['redrafter', { deadline_ms: 0 }],
    ['service_tier', 'best'],
    ['service_tier', 1],
    ['temprature', 0],
    ['x'.repeat(50_000), 0],
    ['model', 5],
    ['model', null],
  ];
  const named = both.map(([field, value]) => ({ name: field.slice(0, 20), field, value }));
  it.each(named)('$name: $value', async ({ field, value }) => {
    for (const [path, body] of [
      [COMPLETIONS, good],
      [CHAT, chat],
    ] as const) {
      const [status, code] = await refused(path, { ...body, [field]: value });
      expect([status, code]).toEqual([400, WRONG]);
    }
  });

  it('names the field', async () => {
    expect(await refused(COMPLETIONS, { ...good, top_p: 2 })).toEqual([400, WRONG, 'top_p']);
    expect(await refused(CHAT, { ...chat, n: 300 })).toEqual([400, WRONG, 'n']);
    expect(await refused(CHAT, { ...chat, logit_bias: { 5: 'x' } })).toEqual([400, WRONG, 'logit_bias']);
    expect(await refused(CHAT, { ...chat, banned_token_ids: [1e9] })).toEqual([400, WRONG, 'banned_token_ids']);
    expect(await refused(CHAT, { ...chat, max_token: 3 })).toEqual([400, WRONG, 'max_token']);
  });

  const completion: [field: string, value: unknown][] = [
    ['prompt', ''],
    ['prompt', []],
    ['prompt', [[]]],
    ['prompt', [[[1]]]],
    ['prompt', [1, 'a']],
    ['prompt', [-1]],
    ['prompt', [264]],
    ['prompt', [1.5]],
    ['prompt', ['a', 'b']],
    ['prompt', Array(20_000).fill('a')],
    ['prompt', null],
    ['prompt', { text: 'a' }],
    ['prompt', '\ud800'],
    ['logprobs', 1e6],
    ['logprobs', true],
    ['echo', true],
    ['suffix', 'x'],
    ['messages', []],
  ];
  it.each(completion)('completions, %s: %j', async (field, value) => {
    expect((await refused(COMPLETIONS, { ...good, [field]: value })).slice(0, 2)).toEqual([400, WRONG]);
  });

  const user = (content: unknown): unknown => [{ role: 'user', content }];
  const chats: [field: string, value: unknown][] = [
    ['messages', []],
    ['messages', 'hello'],
    ['messages', [null]],
    ['messages', [{ role: 'tool', content: 'x' }]],
    ['messages', [{ role: 'user' }]],
    ['messages', [{ role: 'user', content: 'x', name: 'someone' }]],
    ['messages', user([{ type: 'image_url', image_url: { url: 'http://127.0.0.1:9/' } }])],
    ['messages', user([{ type: 'text' }])],
    ['messages', user('\udfff')],
    ['logprobs', 1],
    ['top_logprobs', 2],
    ['max_completion_tokens', 0],
    ['prompt', 'x'],
  ];
  it.each(chats)('chat, %s: %j', async (field, value) => {
    expect((await refused(CHAT, { ...chat, [field]: value })).slice(0, 2)).toEqual([400, WRONG]);
  });
  it('chat, top_logprobs beyond 20', async () => {
    expect(await refused(CHAT, { ...chat, logprobs: true, top_logprobs: 21 })).toEqual([400, WRONG, 'top_logprobs']);
  });

  it.each(['../../../etc/passwd', 'x'.repeat(90_000), 'Tiny', ''])('model %.30s: 404', async (model) => {
    expect(await refused(CHAT, { ...chat, model })).toEqual([404, 'model_not_found', 'model']);
  });

  it('a prompt that does not fit: 400, before it is looked at when it is far too long', async () => {
    const small = await start(await loadTiny({ contextTokens: 64 }));
    const code = async (body: object): Promise<string> =>
      (await json<Failure>(await post(small.url, COMPLETIONS, body))).error.code;
    expect(await code({ ...good, prompt: 'xy'.repeat(32) })).toBe('ERR_CONTEXT');
    expect(await code({ ...good, prompt: ' '.repeat(90_000) })).toBe('ERR_CONTEXT');
    expect(await code({ ...good, prompt: Array(5000).fill(1) })).toBe('ERR_CONTEXT');
    expect((await post(small.url, COMPLETIONS, { ...good, prompt: 'x'.repeat(63), max_tokens: 60 })).status).toBe(200);
  });

  it('more messages than the context has tokens: 400, before they are looked at', async () => {
    const small = await start(await loadTiny({ contextTokens: 64 }));
    const messages = Array(64).fill({ role: 'user', content: '' });
    const { error } = await json<Failure>(await post(small.url, CHAT, { ...chat, messages }));
    expect([error.code, error.message]).toEqual(['ERR_CONTEXT', expect.stringContaining('there are 64 messages')]);
  });

  it('a request that the whole KV cache cannot hold: 400, and no wait', async () => {
    const small = await start(await loadTiny({ kvTokens: 128 }));
    const response = await post(small.url, COMPLETIONS, { ...good, max_tokens: 1000 });
    expect([response.status, (await json<Failure>(response)).error.code]).toEqual([400, 'ERR_KV_FULL']);
  });

  it('fields that change nothing are ignored, and neutral values accepted', async () => {
    const harmless = {
      user: 'u',
      metadata: { a: '1' },
      n: 1,
      presence_penalty: 0,
      logit_bias: {},
      tools: [],
      store: false,
    };
    const neutral = { ...harmless, frequency_penalty: null, response_format: { type: 'text' }, stop: null, seed: null };
    expect(
      (await post(tiny.url, COMPLETIONS, { ...good, ...neutral, echo: false, best_of: 1, suffix: null })).status,
    ).toBe(200);
    expect((await post(tiny.url, CHAT, { ...chat, ...neutral, tool_choice: 'none' })).status).toBe(200);
  });
});

it('a model without tokenizer is refused', async () => {
  await expect(start(await loadTiny({}, paths.idsOnly))).rejects.toMatchObject({ code: 'ERR_TOKENIZER' });
});

it('the log and the metrics hold nothing that clients wrote', async () => {
  const secret = 'sesame';
  await post(tiny.url, COMPLETIONS, { ...good, prompt: secret });
  await post(tiny.url, COMPLETIONS, { ...good, [secret]: 1 });
  await post(tiny.url, `/${secret}`, {});
  await fetch(`${tiny.url}/v1/models/${secret}?key=${secret}`, {
    method: 'PROPFIND',
    headers: { authorization: `Bearer ${secret}` },
  });
  const metrics = await (await fetch(`${tiny.url}/metrics`)).text();
  await until(() => tiny.log.some(({ route }) => route === '/metrics'));
  expect(tiny.log.some(({ code }) => code === WRONG)).toBe(true);
  expect(`${metrics}${JSON.stringify(tiny.log)}`).not.toContain(secret);
});
