/** Decoding holds no thread of libuv's pool, which file system, DNS and crypto calls of the whole process share. */
import { execFile } from 'node:child_process';

import { expect, it } from 'vitest';

import { writeTinyModel } from './tiny.js';

const paths = writeTinyModel();
const SCRIPT = `
  import { pbkdf2 } from 'node:crypto';
  import { writeSync } from 'node:fs';
  import { stat } from 'node:fs/promises';
  import { Model } from ${JSON.stringify(new URL('../../dist/index.mjs', import.meta.url).href)};
  const model = await Model.load(${JSON.stringify(paths.model)}, { drafter: ${JSON.stringify(paths.drafter)}, threads: 1 });
  pbkdf2('', '', 2 ** 31 - 1, 64, 'sha512', () => {}); // takes the only thread of the pool, for many minutes
  let pool = 'blocked';
  stat('.').then(() => { pool = 'free'; });
  const session = await model.createSession();
  const { tokenIds } = await session.generate([1, 2, 3], { maxTokens: 200, ignoreEos: true }).result();
  writeSync(1, tokenIds.length + ' tokens, pool ' + pool);
  process.kill(process.pid, 'SIGKILL'); // an orderly exit would wait for the pool
`;

it('generates while the only thread of the pool is busy', async () => {
  const args = ['--input-type=module', '-e', SCRIPT];
  const env = { ...process.env, UV_THREADPOOL_SIZE: '1' };
  const out = await new Promise<string>((resolve) => {
    execFile(process.execPath, args, { env, timeout: 30_000, killSignal: 'SIGKILL' }, (_, stdout, stderr) => {
      resolve(stdout + stderr);
    });
  });
  expect(out).toBe('200 tokens, pool blocked');
});
