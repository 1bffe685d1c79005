/** What the system does not give: memory, threads, files, a home. The error is typed, and the process goes on. */
import { chmodSync, existsSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { expect, it } from 'vitest';

import { INDEX, scriptRunner, type ScriptOptions } from '../kit/script.js';
import { writeTinyModel } from '../lib/tiny.js';

const paths = writeTinyModel();
const root = dirname(paths.model);
const script = scriptRunner(paths);

/** `limit('--as=N:')` sets a soft limit of this process; `attempt(work)` gives 'ok' or the code of the error. */
const HELPERS = `
  const { estimateMemory, inspect } = await import(${JSON.stringify(INDEX)});
  const { execFileSync, spawnSync } = await import('node:child_process');
  const limit = (text) => execFileSync('prlimit', ['--pid', String(process.pid), text]);
  const attempt = (work) => work().then(() => 'ok', (error) => error.code + (error.stack.includes('eval') ? '' : ' without stack'));
  const m = await load();
  const s = await m.createSession();
  await s.append([1, 2, 3]);
  const saved = ${JSON.stringify(join(root, 'saved.session'))};
  await s.save(saved);
  const decode = async () => { await s.generate([4], { maxTokens: 8 }).result(); };
  const everything = async () => ({
    load: await attempt(() => load({ kvTokens: 64 })),
    inspect: await attempt(() => inspect(paths.model)),
    estimate: await attempt(() => estimateMemory(paths.model)),
    save: await attempt(() => s.save(saved + '.2')),
    restore: await attempt(() => m.restoreSession(saved)),
    decode: await attempt(decode),
  });`;

/** Runs a body that prints JSON, and says nothing else. */
async function json(body: string, options?: ScriptOptions): Promise<unknown> {
  const { code, signal, stdout, stderr } = await script(HELPERS + body, options);
  expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: '' });
  return JSON.parse(stdout);
}

const all = (outcome: string): object => ({
  load: outcome,
  inspect: outcome,
  estimate: outcome,
  save: outcome,
  restore: outcome,
  decode: 'ok', // needs nothing that it does not have already
});

it('more memory than any machine has is ERR_OOM', async () => {
  const body = `console.log(JSON.stringify([await attempt(() => load({ kvTokens: 2 ** 31 - 1 })), await attempt(decode)]));`;
  expect(await json(body)).toEqual(['ERR_OOM', 'ok']);
});

const limitable = process.platform === 'linux' && existsSync('/usr/bin/prlimit');
// A sanitizer's shadow memory has terabytes of address space.
const sanitized = process.env.LD_PRELOAD?.includes('asan') === true;

it.runIf(limitable && !sanitized)('an end of the address space is ERR_OOM', async () => {
  const body = `
    const bytes = (more) => 1024 * status('VmSize') + more;
    limit('--as=' + bytes(256 * 2 ** 20) + ':');
    const outcomes = [];
    for (const options of [{ kvTokens: 4e6 }, { threads: 1024 }, { kvTokens: 64 }]) {
      for (let i = 0; i < 3; i++) outcomes.push(await attempt(async () => (await load(options)).dispose()));
    }
    outcomes.push(await attempt(decode));
    limit('--as=unlimited:');
    outcomes.push(await attempt(async () => (await load({ threads: 64, kvTokens: 64 })).dispose()));
    console.log(JSON.stringify(outcomes));`;
  const oom = 'ERR_OOM';
  expect(await json(body)).toEqual([oom, oom, oom, oom, oom, oom, 'ok', 'ok', 'ok', 'ok', 'ok']);
});

it.runIf(limitable)('no file that can be opened is ERR_FILE', async () => {
  const body = `
    const { closeSync, openSync } = await import('node:fs');
    limit('--nofile=256:');
    const open = [];
    try { for (;;) open.push(openSync(paths.model + '/config.json')); } catch {}
    const without = await everything();
    open.forEach((each) => closeSync(each));
    console.log(JSON.stringify([without, await everything()]));`;
  expect(await json(body)).toEqual([all('ERR_FILE'), all('ok')]);
});

// The superuser may start any number of threads, so the process changes into a user that may not.
it.runIf(limitable && process.getuid?.() === 0)('no thread that can be started is ERR_OOM', async ({ skip }) => {
  chmodSync(root, 0o777);
  const body = `
    limit('--nproc=1:1');
    process.setuid(65534);
    const able = spawnSync('true').error === undefined; // then the system does not hold to the limit
    console.log(JSON.stringify(able ? null : await everything()));
    await m.dispose();`;
  const outcome = await json(body);
  if (outcome === null) skip();
  expect(outcome).toEqual(all('ERR_OOM'));
});

it('a home that does not exist, or cannot be written, is not missed', async () => {
  const body = `
    const { getBackends } = await import(${JSON.stringify(INDEX)});
    const cuda = getBackends().find((each) => each.device === 'cuda');
    console.log(JSON.stringify({ ...(await everything()), cuda: cuda.available || cuda.reason.code.length > 0 }));`;
  for (const HOME of ['/nonexistent', '/proc']) {
    const env = { HOME, USERPROFILE: HOME, XDG_CACHE_HOME: HOME, CUDA_VISIBLE_DEVICES: '' };
    expect(await json(body, { env })).toEqual({ ...all('ok'), cuda: true });
  }
  rmSync(root, { recursive: true });
});
