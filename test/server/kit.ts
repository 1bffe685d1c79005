/** A server over the tiny model on a free port, and clients that do what they should and what they should not. */
import { connect, type Socket } from 'node:net';

import { afterAll } from 'vitest';

import { Model } from '../../lib/model.js';
import type { LoadOptions } from '../../lib/option-types.js';
import type { RequestLog, ServerOptions } from '../../lib/server/options.js';
import { createServer, type Server } from '../../lib/server/server.js';
import { turn, writeTinyModel } from '../lib/tiny.js';

export const NAME = 'tiny';
export const paths = writeTinyModel();

export interface Running {
  url: string;
  port: number;
  model: Model;
  server: Server;
  /** What was logged so far. */
  log: RequestLog[];
}

const cleanups: (() => Promise<void>)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

export async function loadTiny(options: LoadOptions = {}, directory = paths.model): Promise<Model> {
  const model = await Model.load(directory, { drafter: paths.drafter, threads: 1, device: 'cpu', ...options });
  cleanups.push(() => model.dispose());
  return model;
}

export async function start(model: Model, options: Partial<ServerOptions> = {}): Promise<Running> {
  const log: RequestLog[] = [];
  const server = createServer(model, { port: 0, modelName: NAME, onRequest: (entry) => log.push(entry), ...options });
  const url = await server.listen();
  await server.ready;
  cleanups.push(() => server.close());
  return { url, port: Number(new URL(url).port), model, server, log };
}

export interface Failure {
  error: { message: string; type: string; param: string | null; code: string };
}

export function post(url: string, path: string, body: unknown, init: RequestInit = {}): Promise<Response> {
  return fetch(url + path, {
    method: 'POST',
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...init,
    headers: { 'content-type': 'application/json', ...(init.headers as Record<string, string> | undefined) },
  });
}

export async function json<T>(response: Response): Promise<T> {
  return (await response.json()) as T;
}

/** The events of a stream; the last one is '[DONE]' or an object with `error`. */
export async function events(response: Response): Promise<unknown[]> {
  const lines = (await response.text()).split('\n\n').filter((line) => line !== '');
  return lines.map((line) => {
    const data = line.slice('data: '.length);
    return data === '[DONE]' ? data : (JSON.parse(data) as unknown);
  });
}

/** A long generation that the end-of-sequence token does not end. */
export const LONG = { model: NAME, prompt: 'hello', max_tokens: 4000, ignore_eos: true, temperature: 0 };

/** Waits until `condition` holds, for up to ten seconds. */
export async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !condition(); i++) await turn(10);
  if (!condition()) throw new Error('it did not happen within ten seconds');
}

/** Whether no session is open and the whole KV cache is free. */
export function allFree(model: Model): boolean {
  const { freeBlocks, totalBlocks, sessions } = model.kvUsage();
  return sessions === 0 && freeBlocks === totalBlocks;
}

/** Until so many requests pause for good: one whose client reads may do so for a moment, too. */
export async function untilPaused(model: Model, count: number): Promise<void> {
  let times = 0;
  await until(() => {
    times = model.queueUsage().pausedRequests === count ? times + 1 : 0;
    return times > 20;
  });
}

/** A connection that speaks HTTP by hand. */
export class Raw {
  readonly socket: Socket;
  received = '';
  closed = false;

  constructor(port: number) {
    this.socket = connect(port, '127.0.0.1');
    this.socket.on('data', (data) => (this.received += data.toString('latin1')));
    this.socket.on('close', () => (this.closed = true));
    this.socket.on('error', () => undefined);
  }

  send(text: string): this {
    this.socket.write(text);
    return this;
  }

  post(path: string, body: string, headers = ''): this {
    return this.send(
      `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n${headers}` +
        `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
  }

  /** The status of the first answer, once its header is there. */
  async status(): Promise<number> {
    await until(() => this.closed || this.received.includes('\r\n\r\n'));
    return Number(/^HTTP\/1\.1 (\d{3})/.exec(this.received)?.[1] ?? 0);
  }

  destroy(): void {
    this.socket.destroy();
  }
}
