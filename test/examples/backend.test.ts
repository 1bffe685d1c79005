/** examples/backend/server.mjs in a process of its own, with clients that behave and clients that do not. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { Model, type QueueUsage } from '../../lib/index.js';
import { bundled, prompts, trainedDrafters } from '../kit/bundled.js';

const root = join(import.meta.dirname, '../..');
const file = join(root, 'examples/backend/server.mjs');

/** Goes on to the end of the context. */
const PROMPT = 'interface Point {\n';

let model: Model;
beforeAll(async () => {
  model = await Model.load(bundled, { drafter: trainedDrafters.gru, threads: 1, device: 'cpu' });
});
afterAll(() => model.dispose());

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

/** Starts the server; resolves to its process and address. */
async function start(env: NodeJS.ProcessEnv = {}, flags: string[] = []): Promise<{ child: ChildProcess; url: string }> {
  const child = spawn(process.execPath, [...flags, file], {
    env: { ...process.env, PORT: '0', MODEL: bundled, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  return { child, url: line.toString().trim() };
}

interface Answer {
  status: number;
  retryAfter: string | null;
  text: string;
  /** Of the last event. */
  end: { finishReason?: string; tokens?: number; reusedTokens?: number };
}

function post(
  url: string,
  body: unknown,
  { key = 'key-of-ada', signal }: { key?: string; signal?: AbortSignal } = {},
): Promise<Response> {
  // prettier-ignore
  return fetch(url, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}` },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...(signal === undefined ? {} : { signal }),
  });
}

async function ask(url: string, body: unknown, key?: string): Promise<Answer> {
  const response = await post(url, body, key === undefined ? {} : { key });
  const { status, headers } = response;
  const events = [...(await response.text()).matchAll(/^data: (.+)\n\n/gm)].map(
    ([, json = '']) => JSON.parse(json) as { text?: string } & Answer['end'],
  );
  const text = events.map((event) => event.text ?? '').join('');
  return { status, retryAfter: headers.get('retry-after'), text, end: events.at(-1) ?? {} };
}

async function health(url: string): Promise<QueueUsage & { sessions: number }> {
  const response = await fetch(new URL('/health', url));
  return (await response.json()) as QueueUsage & { sessions: number };
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await wait(5);
}

/** The server disposes of a session after the end of its answer. */
async function idle(url: string): Promise<void> {
  await until(async () => (await health(url)).sessions === 0);
  expect(await health(url)).toMatchObject({ activeRequests: 0, waitingRequests: 0 });
}

/** What this process computes. */
async function textOf(prompt: string, maxTokens: number): Promise<string> {
  const session = await model.createSession();
  const { text } = await session.generate(prompt, { maxTokens }).result();
  await session.dispose();
  return text;
}

describe('the backend', () => {
  it('streams the text of an in-process run, to several at once, and leaves no session', async () => {
    const { url } = await start();
    const asked = [PROMPT, ...prompts.slice(0, 4).map(({ text }) => text)];
    const answers = await Promise.all(asked.map((prompt) => ask(url, { prompt, maxTokens: 60 })));
    for (const [i, prompt] of asked.entries()) {
      expect(answers[i]).toMatchObject({ status: 200, text: await textOf(prompt, 60) });
      expect(answers[i]?.end.finishReason).toMatch(/^(length|eos)$/);
    }
    await idle(url);
  });

  it('reuses prefixes within a tenant, and not across', async () => {
    const { url } = await start();
    const body = { prompt: prompts[0]?.text ?? '', maxTokens: 4 };
    const reused: unknown[] = [];
    for (const key of ['key-of-ada', 'key-of-ada', 'key-of-bob', 'key-of-bob'])
      reused.push((await ask(url, body, key)).end.reusedTokens);
    expect(reused).toEqual([0, reused[1], 0, reused[1]]);
    expect(reused[1]).toBeGreaterThan(15);
  });

  it('ends a generation whose client goes away', async () => {
    const { url } = await start();
    const gone = new AbortController();
    const response = await post(url, { prompt: PROMPT, maxTokens: 2000 }, { signal: gone.signal });
    expect(response.status).toBe(200);
    expect((await health(url)).sessions).toBe(1);
    gone.abort();
    await idle(url);
    expect((await ask(url, { prompt: PROMPT, maxTokens: 8 })).status).toBe(200);
  });

  it('pauses for a client that is slow to read, and gives it all of the text', async () => {
    // Kernels buffer more than an answer of this model, so here every write counts as one that must wait.
    const preload = `import { ServerResponse } from 'node:http';
      const { write } = ServerResponse.prototype;
      ServerResponse.prototype.write = function (...given) {
        write.apply(this, given);
        setTimeout(() => this.emit('drain'), 15);
        return false;
      };`;
    const { url } = await start({}, ['--import', `data:text/javascript,${encodeURIComponent(preload)}`]);
    const answer = ask(url, { prompt: PROMPT, maxTokens: 300 });
    await until(async () => (await health(url)).pausedRequests === 1);
    expect(await answer).toMatchObject({ status: 200, text: await textOf(PROMPT, 300), end: { tokens: 300 } });
  });

  it('says 503 with Retry-After when the queue is full', async () => {
    const { url } = await start({ MAX_QUEUED: '1' });
    const body = { prompt: PROMPT, maxTokens: 2000 }; // the cache has room for four of these
    const answers = await Promise.all(Array.from({ length: 8 }, () => ask(url, body)));
    const refused = answers.filter(({ status }) => status === 503);
    const answered = answers.filter(({ status }) => status === 200);
    expect(refused.length).toBeGreaterThanOrEqual(3);
    expect(answered.length).toBe(8 - refused.length);
    expect(new Set(refused.map(({ retryAfter }) => retryAfter))).toEqual(new Set(['2']));
    expect(new Set(answered.map(({ text }) => text)).size).toBe(1);
    await idle(url);
    expect((await ask(url, { prompt: PROMPT, maxTokens: 8 })).status).toBe(200);
  });

  it('says 429 with Retry-After to a user that asks too much at once, and to nobody else', async () => {
    const { url } = await start();
    const [body, key] = [{ prompt: PROMPT, maxTokens: 2000 }, 'key-of-bob'];
    const gone = new AbortController();
    const running = await Promise.all([1, 2].map(() => post(url, body, { key, signal: gone.signal })));
    expect(running.map(({ status }) => status)).toEqual([200, 200]);
    expect(await ask(url, body, key)).toMatchObject({ status: 429, retryAfter: '1' });
    expect((await ask(url, { prompt: PROMPT, maxTokens: 8 })).status).toBe(200);
    gone.abort();
    await idle(url);
    expect((await ask(url, { prompt: PROMPT, maxTokens: 8 }, key)).status).toBe(200);
  });

  it('ends what takes too long with what there is, or says that it was too busy', async () => {
    const { url } = await start({ DEADLINE_MS: '60' });
    const some = await ask(url, { prompt: PROMPT, maxTokens: 2000 });
    expect(some).toMatchObject({ status: 200, end: { finishReason: 'deadline' } });
    expect((await textOf(PROMPT, 2000)).startsWith(some.text)).toBe(true);
    const soon = await start({ DEADLINE_MS: '1' });
    const long = { prompt: prompts.map(({ text }) => text).join('').slice(0, 5000), maxTokens: 8 }; // prettier-ignore
    expect(await ask(soon.url, long)).toMatchObject({ status: 503, retryAfter: '5' });
  });

  it('refuses what is wrong, and goes on', async () => {
    const { url } = await start();
    const statuses: number[] = [];
    for (const body of ['', 'null', '[]', '{ "prompt": 1 }', '{ "prompt": "x", "maxTokens": 0 }'])
      statuses.push((await ask(url, body)).status);
    expect(statuses).toEqual([400, 400, 400, 400, 400]);
    expect((await ask(url, { prompt: 'x '.repeat(4000) })).status).toBe(400); // longer than the context
    expect((await ask(url, { prompt: 'x'.repeat(200_000) })).status).toBe(413);
    expect((await ask(url, { prompt: 'x' }, 'key-of-nobody')).status).toBe(401);
    expect((await ask(new URL('/', url).href, { prompt: 'x' })).status).toBe(404);
    expect(await ask(url, { prompt: PROMPT, maxTokens: 8 })).toMatchObject({ status: 200 });
    await idle(url);
  });

  it.skipIf(process.platform === 'win32')('lets answers end after SIGTERM, and exits', async () => {
    const { child, url } = await start();
    const response = await post(url, { prompt: PROMPT, maxTokens: 300 });
    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    expect(await response.text()).toMatch(/"finishReason":"length"/);
    expect(await exited).toEqual([0, null]);
  });

  it('is what the guide shows', () => {
    const [, ...blocks] = readFileSync(join(root, 'docs/serving.md'), 'utf8').split('```js\n');
    expect(blocks.map((block) => block.split('```')[0])).toContain(readFileSync(file, 'utf8'));
  });
});
