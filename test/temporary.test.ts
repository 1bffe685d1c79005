/** What test/kit/temporary.ts promises: no test, and no program that a test starts, sees the system's own directory. */
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { basename, dirname } from 'node:path';

import { expect, it } from 'vitest';

import { temporaryDirectory } from './kit/checkpoint.js';

it('temporary files lie in a folder that goes away after the tests', () => {
  const child = execFileSync(process.execPath, ['-p', 'os.tmpdir()'], { encoding: 'utf8' }).trimEnd();
  for (const path of [tmpdir(), dirname(temporaryDirectory('made')), child]) {
    expect(basename(path)).toMatch(/^redrafter-tests-/);
  }
});
