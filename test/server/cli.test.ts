/** `redrafter serve` as a process: what it prints, and how it ends. */
import { spawn, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { afterEach, describe, expect, it } from 'vitest';

import { events, json, LONG, NAME, paths, post, until, type Failure } from './kit.js';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

class Serving {
  readonly child: ChildProcess;
  stderr = '';
  stdout = '';
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;

  constructor(args: string[], env: Record<string, string> = {}) {
    const model = ['--model', paths.model, '--drafter', paths.drafter, '--model-name', NAME];
    const fixed = ['--port', '0', '--threads', '1', '--device', 'cpu'];
    this.child = spawn(process.execPath, [MAIN, 'serve', ...model, ...fixed, ...args], {
      env: { ...process.env, ...env },
    });
    this.child.stderr?.on('data', (data) => (this.stderr += String(data)));
    this.child.stdout?.on('data', (data) => (this.stdout += String(data)));
    this.ended = new Promise((resolve) => {
      this.child.once('close', (code, signal) => {
        resolve({ code, signal });
      });
    });
    children.push(this.child);
  }

  /** Its address, once the model is loaded. */
  async url(): Promise<string> {
    await until(() => this.child.exitCode !== null || /\bready\b/.test(this.stderr));
    return /http:\/\/[\d.]+:\d+/.exec(this.stderr)?.[0] ?? '';
  }

  lines(): Record<string, unknown>[] {
    return this.stderr
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }
}

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

const PATH = '/v1/completions';

/** Slow enough that a long request runs on while something is done beside it, also on a busy machine. */
const SLOWLY = ['--device', 'cpu:oracle'];

describe('redrafter serve', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)('lets requests end after %s, and exits with 0', async (signal) => {
    const serving = new Serving(['--log', 'json', ...SLOWLY]);
    const url = await serving.url();
    const answer = await post(url, PATH, { ...LONG, max_tokens: 3000, stream: true });
    serving.child.kill(signal);
    await until(() => serving.stderr.includes('draining'));
    expect((await fetch(`${url}/health`)).status).toBe(503);
    const { error } = await json<Failure>(await post(url, PATH, LONG));
    expect(error).toMatchObject({ type: 'server_error', code: 'shutting_down', param: null });
    expect((await events(answer)).at(-1)).toBe('[DONE]');
    expect(await serving.ended).toEqual({ code: 0, signal: null });
    const lines = serving.lines();
    expect(lines.map(({ event }) => event).filter((event) => event !== 'request')).toEqual([
      'listening',
      'ready',
      'draining',
      'stopped',
    ]);
    expect(lines).toContainEqual(
      expect.objectContaining({
        event: 'request',
        route: PATH,
        status: 200,
        stream: true,
        completionTokens: 3000,
        finishReason: 'length',
      }),
    );
    expect(serving.stdout).toBe('');
  });

  it('ends requests with an error when the grace is over', async () => {
    const other = new Serving(['--grace', '0', ...SLOWLY]);
    const url = await other.url();
    const answer = await post(url, PATH, { ...LONG, stream: true });
    other.child.kill('SIGTERM');
    expect((await events(answer)).at(-1)).toMatchObject({ error: { code: 'shutting_down' } });
    expect(await other.ended).toEqual({ code: 0, signal: null });
    expect(other.stderr).toMatch(/ 200 POST \/v1\/completions \d+ ms shutting_down/);
  });

  it('ends at once at the second signal', async () => {
    const serving = new Serving(SLOWLY);
    const url = await serving.url();
    await post(url, PATH, { ...LONG, stream: true });
    serving.child.kill('SIGTERM');
    await until(() => serving.stderr.includes('draining'));
    serving.child.kill('SIGTERM');
    expect(await serving.ended).toEqual({ code: 143, signal: null });
  });

  it('exits with 0 after a signal while the model is loaded', async () => {
    const serving = new Serving([]);
    await until(() => serving.stderr.includes('listening'));
    serving.child.kill('SIGTERM');
    expect(await serving.ended).toEqual({ code: 0, signal: null });
    expect(serving.stderr).toContain('stopped');
    expect(serving.stderr).not.toContain('error');
  });

  it('takes its key from the environment and never prints it', async () => {
    const key = 'a-secret-key';
    const serving = new Serving(['--api-key-env', 'MY_KEY', '--log', 'json', '--host', '0.0.0.0'], { MY_KEY: key });
    const url = (await serving.url()).replace('0.0.0.0', '127.0.0.1');
    const body = { ...LONG, prompt: 'a-secret-prompt', max_tokens: 5 };
    expect((await post(url, PATH, body)).status).toBe(401);
    expect((await post(url, PATH, body, { headers: { authorization: `Bearer ${key}` } })).status).toBe(200);
    serving.child.kill('SIGTERM');
    await serving.ended;
    expect(serving.lines().filter(({ event }) => event === 'request')).toHaveLength(2);
    expect(serving.stderr).not.toContain('a-secret');
  });

  it('exits when loading fails', async () => {
    const serving = new Serving(['--model', `${paths.model}-missing`]);
    expect(await serving.ended).toEqual({ code: 1, signal: null });
    expect(serving.stderr).toMatch(/error \[ERR_FILE\]/);
  });

  it.each([
    [['--host', '0.0.0.0'], /ERR_INVALID_ARGUMENT.*needs an API key/],
    [['--api-key-env', 'NOT_SET_ANYWHERE'], /ERR_INVALID_ARGUMENT.*NOT_SET_ANYWHERE/],
    [['--port', '65536'], /ERR_INVALID_ARGUMENT.*port/],
    [['--max-choices', '0'], /ERR_INVALID_ARGUMENT.*maxChoices/],
    [['--max-active-requests', '0'], /ERR_INVALID_ARGUMENT.*maxActiveRequests/],
    [['--prefix-cache', '-1'], /ERR_INVALID_ARGUMENT.*--prefix-cache/],
    [['--context-policy', 'drop'], /ERR_INVALID_ARGUMENT.*--context-policy must be error, slide or slide:TOKENS/],
    [['--context-policy', 'slide:4096'], /ERR_INVALID_ARGUMENT.*keepTokens/],
    [['--log', 'xml'], /ERR_INVALID_ARGUMENT.*--log/],
    [['--model', paths.idsOnly], /ERR_TOKENIZER/],
  ])('%j: exits with 1', async (args, message) => {
    const serving = new Serving(args, { REDRAFTER_API_KEY: '' });
    expect(await serving.ended).toEqual({ code: 1, signal: null });
    expect(serving.stderr).toMatch(message);
  });
});
