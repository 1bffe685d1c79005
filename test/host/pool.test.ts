/** Sessions take no thread of the libuv pool, which files, DNS and crypto share. */
import { expect, it } from 'vitest';

import { exits, scriptRunner } from '../kit/script.js';
import { writeTinyModel } from '../lib/tiny.js';

const script = scriptRunner(writeTinyModel());

it('work goes on while the only pool thread is blocked', async () => {
  const body = `
    import { pbkdf2 } from 'node:crypto';
    import { readFile } from 'node:fs';
    const m = await load();
    let blocked = true;
    const over = () => { blocked = false; };
    pbkdf2('x', 'y', 2 ** 31 - 1, 64, 'sha512', over); // minutes
    readFile(paths.model + '/config.json', over); // waits behind it
    const s = await m.createSession();
    await s.append([1, 2, 3]);
    const fork = await s.fork();
    const { tokenIds } = await s.generate([], { maxTokens: 100, ignoreEos: true }).result();
    let seen = 0;
    for await (const chunk of fork.generate([], { maxTokens: 100, ignoreEos: true })) seen += chunk.tokenIds.length;
    await fork.rewind(0);
    await s.dispose();
    await m.dispose();
    console.log(tokenIds.length, seen, blocked);
    process.kill(process.pid, 'SIGKILL'); // an exit would wait for the pool`;
  const { signal, stdout, stderr } = await script(body, { env: { UV_THREADPOOL_SIZE: '1' } });
  expect({ signal, stdout, stderr }).toEqual({ signal: 'SIGKILL', stdout: '100 100 true\n', stderr: '' });
});

it('a blocked pool is noticed', async () => {
  const body = `
    import { pbkdf2 } from 'node:crypto';
    import { readFile } from 'node:fs';
    const blocker = { done: false };
    pbkdf2('x', 'y', 200_000, 64, 'sha512', () => { blocker.done = true; });
    await new Promise((resolve) => readFile('/', resolve));
    console.log(blocker.done);`;
  expect(await script(body, { env: { UV_THREADPOOL_SIZE: '1' } })).toEqual(exits(0, 'true\n'));
});
