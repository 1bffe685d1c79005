/** Many clients, and clients that go away, do not read, or come when there is no room. */
import { join } from 'node:path';

import { beforeAll, describe, expect, it } from 'vitest';

import type { Model } from '../../lib/model.js';
import { createServer } from '../../lib/server/server.js';
import { temporaryDirectory, writeTinyLlama } from '../kit/checkpoint.js';
import { byteLevel, writeTokenizer } from '../lib/tokenizers.js';
import { TINY, turn } from '../lib/tiny.js';
import {
  allFree,
  events,
  json,
  loadTiny,
  LONG,
  NAME,
  post,
  Raw,
  untilPaused,
  start,
  until,
  type Failure,
  type Running,
} from './kit.js';

const PATH = '/v1/completions';

/** A model with room for long answers. */
function writeLongModel(): string {
  const directory = join(temporaryDirectory('long'), 'model');
  writeTinyLlama(directory, { ...TINY, maxPositions: 65_536 }, 11);
  const template = "{% for m in messages %}{{ m['content'] }}{% endfor %}";
  return writeTokenizer(
    { tokenizer: byteLevel([{ id: 258, content: '<|end|>', special: true }]), template },
    directory,
  );
}

let model: Model;
/** The same, which runs one request at a time. */
let serial: Model;
const LARGE = { contextTokens: 60_000, kvTokens: 240_000 };
const longModel = writeLongModel();
beforeAll(async () => {
  model = await loadTiny(LARGE, longModel);
  serial = await loadTiny({ ...LARGE, maxActiveRequests: 1 }, longModel);
});

/** A generation of minutes, unless it is ended. */
const ENDLESS = { ...LONG, max_tokens: 50_000 };
const stream = JSON.stringify({ ...ENDLESS, stream: true });
const running = async (server: Running): Promise<string> => (await fetch(`${server.url}/metrics`)).text();

/** Requests that run and that wait. */
async function counts(server: Running): Promise<[number, number]> {
  const text = await running(server);
  const value = (name: string): number => Number(new RegExp(`^redrafter_${name} (\\d+)$`, 'm').exec(text)?.[1]);
  return [value('engine_requests_active'), value('engine_requests_waiting')];
}

async function untilCounts(server: Running, wanted: [number, number]): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if ((await counts(server)).join() === wanted.join()) return;
    await turn(10);
  }
  expect(await counts(server)).toEqual(wanted);
}

async function settled(server: Running): Promise<void> {
  await untilCounts(server, [0, 0]);
  await until(() => allFree(server.model));
  for (let i = 0; i < 500 && !/^redrafter_requests_open 0$/m.test(await running(server)); i++) await turn(10);
  expect(await running(server)).toMatch(/^redrafter_requests_open 0$/m);
}

describe('a client that goes away', () => {
  let one: Running;
  beforeAll(async () => {
    one = await start(serial);
  });

  it('while it sends its body', async () => {
    const raw = new Raw(one.port).send(
      `POST ${PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"mod`,
    );
    await turn(50);
    raw.destroy();
    await settled(one);
  });

  it.each([true, false])('while it waits for its turn (stream: %s)', async (streams) => {
    const first = new Raw(one.port).post(PATH, stream);
    await untilCounts(one, [1, 0]);
    const second = new Raw(one.port).post(PATH, JSON.stringify({ ...ENDLESS, stream: streams }));
    await untilCounts(one, [1, 1]);
    second.destroy();
    await untilCounts(one, [1, 0]);
    await until(() => serial.kvUsage().sessions === 1);
    first.destroy();
    await settled(one);
  });

  it.each([true, false])('while its prompt is read (stream: %s)', async (streams) => {
    const prompt = Array.from({ length: 50_000 }, (_, i) => i % 250);
    const raw = new Raw(one.port).post(PATH, JSON.stringify({ ...LONG, prompt, stream: streams }));
    await until(() => serial.kvUsage().sessions === 1);
    await turn(20);
    raw.destroy();
    const before = performance.now();
    await settled(one);
    expect(performance.now() - before).toBeLessThan(5000); // the prompt takes far longer
    expect(raw.received).toBe('');
  });

  it.each([true, false])('while it is answered (stream: %s)', async (streams) => {
    const { tokens } = serial.stats;
    const raw = new Raw(one.port).post(PATH, JSON.stringify({ ...ENDLESS, stream: streams }));
    if (streams) await until(() => raw.received.includes('data: '));
    else await untilCounts(one, [1, 0]);
    raw.destroy();
    await settled(one);
    expect(serial.stats.tokens - tokens).toBeLessThan(50_000);
  });

  it('is told from the others in the log', async () => {
    await until(() => one.log.filter(({ code }) => code === 'client_closed').length >= 6);
    const statuses = one.log.filter(({ code }) => code === 'client_closed').map(({ status }) => status);
    expect(new Set(statuses)).toEqual(new Set([499, 200])); // 200: the stream had begun
  });

  it.each([true, false])('with requests in a row on one connection (stream: %s)', async (streams) => {
    const server = await start(await loadTiny({ ...LARGE, maxActiveRequests: 2 }, longModel));
    const body = JSON.stringify({ ...ENDLESS, stream: streams });
    const raw = new Raw(server.port).post(PATH, body).post(PATH, body).post(PATH, body);
    await untilCounts(server, [2, 1]);
    raw.destroy();
    await settled(server);
    const codes = (): unknown[] => server.log.filter(({ route }) => route === PATH).map(({ code }) => code);
    await until(() => codes().length === 3);
    expect(codes()).toEqual(Array(3).fill('client_closed'));
  });

  it('again and again: nothing is left', async () => {
    for (let i = 0; i < 100; i++) {
      const raw = new Raw(one.port).post(PATH, stream);
      await turn(i % 10);
      raw.destroy();
    }
    await settled(one);
    expect((await post(one.url, PATH, { ...LONG, max_tokens: 5 })).status).toBe(200);
  });
});

describe('many requests', () => {
  it('50 at a time: each gets its own answer', async () => {
    const server = await start(await loadTiny({ maxActiveRequests: 8, maxQueuedRequests: 50 }));
    const ask = async (i: number): Promise<unknown> => {
      const body = {
        model: NAME,
        prompt: `request ${i}`,
        seed: i,
        max_tokens: 30,
        stream: i % 2 === 0,
        return_token_ids: true,
      };
      const response = await post(server.url, PATH, body);
      expect(response.status).toBe(200);
      const parts = body.stream ? await events(response) : [await json(response)];
      const choices = parts.flatMap((part) => (part as { choices?: { token_ids: number[] }[] }).choices ?? []);
      return choices.flatMap(({ token_ids }) => token_ids);
    };
    const together = await Promise.all(Array.from({ length: 50 }, (_, i) => ask(i)));
    for (const i of [0, 1, 17, 32, 49]) expect(together[i]).toEqual(await ask(i));
    expect(new Set(together.map((ids) => String(ids))).size).toBe(50);
    await settled(server);
  });

  it('more than the KV cache holds at a time: each waits for its room', async () => {
    const server = await start(await loadTiny({ contextTokens: 256, kvTokens: 600 }));
    const ask = async (i: number): Promise<number> => {
      const response = await post(server.url, PATH, { ...LONG, seed: i, max_tokens: 200 });
      return response.status;
    };
    const statuses = await Promise.all(Array.from({ length: 40 }, (_, i) => ask(i)));
    expect(statuses).toEqual(Array(40).fill(200));
  });

  it('beyond the queue: 429 with Retry-After at once', async () => {
    const small = await loadTiny({ ...LARGE, maxActiveRequests: 1, maxQueuedRequests: 2 }, longModel);
    const server = await start(small);
    const busy = [];
    for (const wanted of [
      [1, 0],
      [1, 1],
      [1, 2],
    ] as [number, number][]) {
      busy.push(new Raw(server.port).post(PATH, stream));
      await untilCounts(server, wanted);
    }
    // Refused before the body is looked at, so that it need not be right.
    for (const body of [LONG, '{']) {
      const response = await post(server.url, PATH, body);
      expect([response.status, response.headers.get('retry-after')]).toEqual([429, '1']);
      const { error } = await json<Failure>(response);
      expect(error).toMatchObject({ code: 'ERR_QUEUE_FULL', type: 'rate_limit_error' });
    }
    const health = await fetch(`${server.url}/health`);
    expect(health.status).toBe(200);
    for (const raw of busy) raw.destroy();
    await settled(server);
    expect((await post(server.url, PATH, { ...LONG, max_tokens: 2 })).status).toBe(200);
  });

  it('more choices than the queue has places: 429 too, and nothing is left', async () => {
    const small = await loadTiny({ maxQueuedTokens: 1, maxQueuedRequests: 2, kvTokens: 4096 });
    const server = await start(small);
    const response = await post(server.url, PATH, { ...LONG, n: 5 });
    expect([response.status, (await json<Failure>(response)).error.code]).toEqual([429, 'ERR_QUEUE_FULL']);
    await settled(server);
  });

  it.each([
    [{ service_tier: 'priority' }, { service_tier: 'flex' }],
    [{ redrafter: { priority: 9 } }, { service_tier: 'priority' }],
    [{}, { redrafter: { priority: -1 }, service_tier: 'priority' }],
  ])('%j goes before %j', async (first, last) => {
    const server = await start(serial);
    const running = new Raw(server.port).post(PATH, stream);
    await untilCounts(server, [1, 0]);
    const order: string[] = [];
    const ask = async (name: string, fields: object): Promise<void> => {
      const response = await post(server.url, PATH, { ...LONG, max_tokens: 3, ...fields });
      expect(response.status).toBe(200);
      const { service_tier } = (await response.json()) as { service_tier?: string };
      expect(service_tier).toBe((fields as { service_tier?: string }).service_tier);
      order.push(name);
    };
    const late = ask('last', last);
    await untilCounts(server, [1, 1]);
    const early = ask('first', first);
    await untilCounts(server, [1, 2]);
    running.destroy();
    await Promise.all([late, early]);
    expect(order).toEqual(['first', 'last']);
    await settled(server);
  });

  it.each([true, false])('one with a deadline that comes while it waits: 503 (stream: %s)', async (streams) => {
    const server = await start(serial);
    const running = new Raw(server.port).post(PATH, stream);
    await untilCounts(server, [1, 0]);
    const response = await post(server.url, PATH, { ...LONG, stream: streams, redrafter: { deadline_ms: 50 } });
    expect([response.status, response.headers.get('retry-after')]).toEqual([503, '1']);
    expect((await json<Failure>(response)).error.code).toBe('deadline_exceeded');
    running.destroy();
    await settled(server);
  });

  it.each([1, 2])('one with a deadline gets what there is by then (n: %i)', async (n) => {
    const server = await start(model);
    const response = await post(server.url, PATH, { ...ENDLESS, n, redrafter: { deadline_ms: 300 } });
    const { choices } = await json<{ choices: { text: string; finish_reason: string }[] }>(response);
    expect(choices.map(({ finish_reason: reason }) => reason)).toEqual(Array(n).fill('length'));
    expect(choices.every(({ text }) => text.length > 10)).toBe(true);
    await settled(server);
  });

  it('wrong ones are refused without a turn', async () => {
    const server = await start(serial);
    const raw = new Raw(server.port).post(PATH, stream);
    await untilCounts(server, [1, 0]);
    expect((await post(server.url, PATH, { ...LONG, stop: [''] })).status).toBe(400);
    raw.destroy();
    await settled(server);
  });
});

describe('a request that takes too long', () => {
  it('gets 504, or an error event and no [DONE]', async () => {
    const server = await start(model, { requestTimeoutMs: 300 });
    const whole = await post(server.url, PATH, ENDLESS);
    expect([whole.status, (await json<Failure>(whole)).error.code]).toEqual([504, 'request_timeout']);
    const list = await events(await post(server.url, PATH, stream));
    expect(list.at(-1)).toMatchObject({ error: { code: 'request_timeout' } });
    expect(list.length).toBeGreaterThan(1);
    await settled(server);
  });
});

describe('a client that does not read', () => {
  // Log-probabilities make the answer larger than what the two ends of a connection buffer.
  const large = (more: object): string => {
    const messages = [{ role: 'user', content: 'hello' }];
    return JSON.stringify({ model: NAME, messages, ignore_eos: true, logprobs: true, top_logprobs: 20, ...more });
  };

  it('makes its request pause, and gets all of the answer when it reads on; others go on', async () => {
    const server = await start(model, { streamBuffer: 50_000, stallTimeoutMs: 20_000 });
    const body = { stream: true, temperature: 0, max_tokens: 6000, return_token_ids: true };
    const slow = new Raw(server.port).post('/v1/chat/completions', large(body));
    slow.socket.pause();
    await untilPaused(model, 1);
    expect(await running(server)).toMatch(/^redrafter_engine_requests_paused 1$/m);
    await turn(200);
    expect(model.queueUsage()).toMatchObject({ activeRequests: 1, pausedRequests: 1 });
    expect((await post(server.url, PATH, { ...LONG, max_tokens: 50 })).status).toBe(200);
    slow.socket.resume();
    await until(() => slow.received.includes('[DONE]'));
    const ids = [...slow.received.matchAll(/"token_ids":\[([\d,]+)\]/g)].flatMap(([, list]) =>
      list?.split(',').map(Number),
    );
    const plain = { ...(JSON.parse(large(body)) as object), stream: false, logprobs: false, top_logprobs: undefined };
    const whole = await post(server.url, '/v1/chat/completions', plain);
    const { choices } = await json<{ choices: { token_ids: number[] }[] }>(whole);
    expect(ids).toEqual(choices[0]?.token_ids);
    expect(ids).toHaveLength(6000);
    await settled(server);
  });

  it('makes each of its choices pause, and gets all of them when it reads on', async () => {
    const server = await start(model, { streamBuffer: 50_000, stallTimeoutMs: 20_000 });
    const body = { temperature: 1, seed: 7, n: 2, max_tokens: 5000, return_token_ids: true };
    const slow = new Raw(server.port).post('/v1/chat/completions', large({ ...body, stream: true }));
    slow.socket.pause();
    await untilPaused(model, 2);
    slow.socket.resume();
    await until(() => slow.received.includes('[DONE]'));
    const plain = { ...(JSON.parse(large(body)) as object), logprobs: false, top_logprobs: undefined };
    const { choices } = await json<{ choices: { index: number; token_ids: number[] }[] }>(
      await post(server.url, '/v1/chat/completions', plain),
    );
    expect(choices.map(({ token_ids: ids }) => ids.length)).toEqual([5000, 5000]);
    for (const { index, token_ids: ids } of choices) {
      const own = slow.received.split('\n').filter((line) => line.includes(`"index":${index},`));
      expect(
        own
          .join()
          .match(/(?<="token_ids":\[)[\d,]+/g)
          ?.flatMap((list) => list.split(',').map(Number)),
      ).toEqual(ids);
    }
    await settled(server);
  });

  it('does not hold up the end of its request when that is aborted or out of time', async () => {
    const server = await start(model, { streamBuffer: 1024, stallTimeoutMs: 20_000, requestTimeoutMs: 3000 });
    const slow = new Raw(server.port).post('/v1/chat/completions', large({ stream: true }));
    slow.socket.pause();
    await untilPaused(model, 1);
    await settled(server);
    slow.socket.resume();
    await until(() => slow.received.includes('request_timeout'));
    const gone = new Raw(server.port).post('/v1/chat/completions', large({ stream: true }));
    gone.socket.pause();
    await untilPaused(model, 1);
    gone.destroy();
    await settled(server);
  });

  it('loses its connection after a while', async () => {
    const server = await start(model, { streamBuffer: 2 ** 30, stallTimeoutMs: 300 });
    const slow = new Raw(server.port).post('/v1/chat/completions', large({ stream: true }));
    slow.socket.pause();
    await until(() => server.log.some(({ code }) => code === 'client_too_slow'));
    await settled(server);
  });

  it('keeps nothing open when its answer is complete', async () => {
    const server = await start(model, { streamBuffer: 2 ** 30, stallTimeoutMs: 300 });
    const slow = new Raw(server.port).post('/v1/chat/completions', large({ max_tokens: 6000 }));
    slow.socket.pause();
    await until(() => server.log.some(({ code }) => code === 'client_too_slow'));
    await settled(server);
  });

  it('is not one that reads slowly', async () => {
    const server = await start(model, { stallTimeoutMs: 2000 });
    const raw = new Raw(server.port).post(PATH, JSON.stringify({ ...LONG, max_tokens: 200, stream: true }));
    for (let i = 0; i < 10; i++) {
      raw.socket.pause();
      await turn(30);
      raw.socket.resume();
      await turn(5);
    }
    await until(() => raw.received.includes('[DONE]'));
    await settled(server);
  });
});

describe('a server without a model', () => {
  const body = { model: NAME, prompt: 'a', max_tokens: 2 };

  it('answers 503 while it loads and after that failed', async () => {
    let fail!: (error: Error) => void;
    const loading = new Promise<Model>((_, reject) => (fail = reject));
    const server = createServer(loading, { port: 0, modelName: NAME });
    const url = await server.listen();
    const state = async (): Promise<unknown[]> => {
      const [health, answer] = [await fetch(`${url}/health`), await post(url, PATH, body)];
      const { error } = await json<Failure>(answer);
      return [health.status, await health.json(), answer.status, answer.headers.get('retry-after'), error.code];
    };
    expect(await state()).toEqual([503, { status: 'loading' }, 503, '1', 'loading']);
    expect((await fetch(`${url}/metrics`)).status).toBe(200);
    fail(new Error('no such file'));
    await expect(server.ready).rejects.toThrow('no such file');
    expect(await state()).toEqual([503, { status: 'failed' }, 503, null, 'load_failed']);
    await server.close();
  });

  it('says so when the model is gone', async () => {
    const gone = await loadTiny();
    const server = await start(gone);
    const running = await post(server.url, PATH, { ...LONG, stream: true }); // the header is there
    await gone.dispose();
    expect((await events(running)).at(-1)).toMatchObject({ error: { code: 'ERR_DISPOSED' } });
    const health = await fetch(`${server.url}/health`);
    expect([health.status, await health.json()]).toEqual([503, { status: 'failed' }]);
    const response = await post(server.url, PATH, body);
    expect([response.status, (await json<Failure>(response)).error.code]).toEqual([503, 'ERR_DISPOSED']);
  });

  it('is refused', async () => {
    const server = createServer(null as unknown as Model, { port: 0, modelName: NAME });
    await expect(server.ready).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  });
});

describe('close', () => {
  it('lets requests end, refuses new ones, and says so in /health', async () => {
    const server = await start(serial);
    const first = post(server.url, PATH, { ...LONG, max_tokens: 3000, stream: true });
    await untilCounts(server, [1, 0]);
    const second = post(server.url, PATH, { ...LONG, max_tokens: 5 });
    await untilCounts(server, [1, 1]);
    const closing = server.server.close(20_000);
    const health = await fetch(`${server.url}/health`);
    expect([health.status, await health.json()]).toEqual([503, { status: 'draining' }]);
    const refused = await post(server.url, PATH, LONG);
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1']);
    expect((await json<Failure>(refused)).error.code).toBe('shutting_down');
    expect((await events(await first)).at(-1)).toBe('[DONE]');
    expect((await second).status).toBe(200);
    await closing;
    await expect(fetch(`${server.url}/health`)).rejects.toThrow();
  });

  it('ends what is not done in time with an error', async () => {
    const server = await start(serial);
    const first = post(server.url, PATH, { ...ENDLESS, stream: true });
    await untilCounts(server, [1, 0]);
    const second = post(server.url, PATH, ENDLESS);
    await untilCounts(server, [1, 1]);
    await first; // the header is there
    await server.server.close(100);
    expect((await events(await first)).at(-1)).toMatchObject({ error: { code: 'shutting_down' } });
    expect((await second).status).toBe(503);
    await until(() => allFree(serial));
  });

  it('waits for as long as a timer can when it may wait for longer', async () => {
    const server = await start(model);
    const request = post(server.url, PATH, { ...LONG, max_tokens: 3000 });
    await untilCounts(server, [1, 0]);
    await server.server.close(1e12);
    expect((await request).status).toBe(200);
  });

  it.each(['127.0.0.1', 'localhost'])('while it begins to listen on %s, and before: it never listens', async (host) => {
    const server = createServer(model, { port: 0, modelName: NAME, host });
    const listening = server.listen();
    await server.close();
    await expect(listening).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    await expect(server.listen()).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });

  it('does not wait for idle connections', async () => {
    const server = await start(model);
    const idle = Array.from({ length: 200 }, () => new Raw(server.port));
    await Promise.all(idle.map((raw) => new Promise((resolve) => raw.socket.once('connect', resolve))));
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    await server.server.close();
    await until(() => idle.every(({ closed }) => closed));
  });
});
