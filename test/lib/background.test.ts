/** inspect and estimateMemory: off the JavaScript thread, off libuv's pool, with the caller's stack, and safe to leave. */
import { execFile } from 'node:child_process';
import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { estimateMemory, inspect, RedrafterError } from '../../lib/index.js';
import { temporaryDirectory } from '../kit/checkpoint.js';
import { writeTinyModel } from './tiny.js';

const { model } = writeTinyModel();

/** A model whose header lists 20,000 tensors, nearly all of which nobody asks for. */
function writeLongHeader(): string {
  const directory = temporaryDirectory('long-header');
  cpSync(join(model, 'config.json'), join(directory, 'config.json'));
  const header: Record<string, unknown> = {};
  for (let i = 0; i < 20_000; i++) {
    header[`model.layers.${i}.self_attn.q_proj.weight`] = { dtype: 'I8', shape: [1], data_offsets: [i, i + 1] };
  }
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(join(directory, 'model.safetensors'), Buffer.concat([size, json, Buffer.alloc(20_000)]));
  return directory;
}

const long = writeLongHeader();

const PRELUDE = `
  import { estimateMemory, inspect } from ${JSON.stringify(new URL('../../dist/index.mjs', import.meta.url).href)};
  const [model, long] = ${JSON.stringify([model, long])};`;

interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

function script(body: string, env: Record<string, string> = {}): Promise<Outcome> {
  return new Promise((resolve) => {
    const args = ['--input-type=module', '-e', PRELUDE + body];
    const options = { timeout: 50_000, env: { ...process.env, ...env } };
    const child = execFile(process.execPath, args, options, (_, stdout, stderr) => {
      resolve({ code: child.exitCode, signal: child.signalCode, stdout, stderr });
    });
  });
}

const exits = (code: number, stdout = ''): Outcome => ({ code, signal: null, stdout, stderr: '' });

describe('work in the background', () => {
  it('lets the event loop turn', async () => {
    let turns = 0;
    const turn = (): void => {
      turns++;
      immediate = setImmediate(turn);
    };
    let immediate = setImmediate(turn);
    try {
      await expect(estimateMemory(long)).rejects.toMatchObject({
        code: 'ERR_MODEL_FORMAT',
        message: expect.stringContaining('embed_tokens') as string,
      });
      expect(turns).toBeGreaterThan(10);
      turns = 0;
      expect((await inspect(long)).tensors).toHaveLength(0);
      expect(turns).toBeGreaterThan(10);
    } finally {
      clearImmediate(immediate);
    }
  });

  it("keeps the caller's stack", async () => {
    async function publicCaller(work: (directory: string) => Promise<unknown>): Promise<unknown> {
      return work(join(model, 'none')).catch((error: unknown) => error);
    }
    for (const work of [inspect, estimateMemory]) {
      const error = await publicCaller(work);
      expect(error).toBeInstanceOf(RedrafterError);
      expect((error as RedrafterError).stack).toMatch(/^FileError \[ERR_FILE\]: [^\n]+\n[\s\S]*publicCaller/);
    }
  });

  it('does many at a time', async () => {
    const works = Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? inspect(model) : estimateMemory(model)));
    const all = await Promise.all(works);
    expect(new Set(all.map((each) => JSON.stringify(each))).size).toBe(2);
  });

  it('takes no thread of the libuv pool', async () => {
    const body = `
      import { pbkdf2 } from 'node:crypto';
      const order = [];
      const pool = new Promise((done) => pbkdf2('a', 'b', 2_000_000, 64, 'sha512', () => done(order.push('pool'))));
      await inspect(model); order.push('inspect');
      await estimateMemory(model); order.push('estimate');
      await pool;
      console.log(order.join());`;
    expect(await script(body, { UV_THREADPOOL_SIZE: '1' })).toEqual(exits(0, 'inspect,estimate,pool\n'));
  });

  it('keeps the process alive until it is done, and no longer', async () => {
    expect(await script(`inspect(model).then((found) => console.log(found.kind));`)).toEqual(exits(0, 'model\n'));
    const failing = await script(`estimateMemory(model + '-none').catch((error) => console.log(error.code));`);
    expect(failing).toEqual(exits(0, 'ERR_FILE\n'));
  });

  it('can be left by a process that exits', async () => {
    for (const delay of [0, 10]) {
      const body = `for (let i = 0; i < 4; i++) { void inspect(long); void estimateMemory(long).catch(() => 0); }`;
      expect(await script(`${body} setTimeout(() => process.exit(7), ${delay});`)).toEqual(exits(7));
    }
    expect(await script(`void inspect(long); process.exit(8);`)).toEqual(exits(8));
  });

  it('can be left by a worker that is ended', async () => {
    const worker = `${PRELUDE}
      import { parentPort } from 'node:worker_threads';
      for (let i = 0; i < 3; i++) { void inspect(long); void estimateMemory(long).catch(() => 0); }
      parentPort.postMessage(0);`;
    const body = `
      import { Worker } from 'node:worker_threads';
      const url = new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(worker)}));
      for (const delay of [0, 1, 5, 20]) {
        const one = new Worker(url);
        await new Promise((ok, bad) => one.once('message', ok).once('error', bad));
        await new Promise((ok) => setTimeout(ok, delay));
        await one.terminate();
      }
      console.log((await inspect(model)).kind);`;
    expect(await script(body)).toEqual(exits(0, 'model\n'));
  });
});
