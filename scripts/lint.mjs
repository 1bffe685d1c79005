// Every static check: types, eslint, prettier and clang-format. `--fix` repairs what can be repaired.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

import { root, runTool } from './tools.mjs';

const fix = process.argv.includes('--fix');

/** clang-format prints a line with a caret for every difference; the names of the files are enough. */
function clangFormat() {
  const args = [...(fix ? ['-i'] : ['--dry-run', '-Werror']), '--glob={native,bench/lab}/**/*.{h,cc,cu,cuh}'];
  const tool = join(root, 'node_modules/clang-format/index.js');
  const { status, stdout, stderr } = spawnSync(process.execPath, [tool, ...args], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 30,
  });
  if (status === 0) return true;
  const files = new Set([...stderr.matchAll(/^((?:native|bench)\/[^:\s]+):\d+:/gm)].map((match) => match[1]));
  console.error(files.size > 0 ? `not formatted (npm run format): ${[...files].join(' ')}` : stdout + stderr);
  return false;
}

/** @type {[name: string, check: () => boolean][]} */
const checks = [
  ['types', () => ['.', 'examples/electron'].every((path) => runTool('typescript/bin/tsc', ['-p', path]))],
  ['eslint', () => runTool('eslint/bin/eslint.js', ['--max-warnings', '0', ...(fix ? ['--fix'] : []), '.'])],
  ['prettier', () => runTool('prettier/bin/prettier.cjs', ['--log-level', 'warn', fix ? '--write' : '--check', '.'])],
  ['clang-format', clangFormat],
];

let failed = 0;
for (const [name, check] of checks) {
  const ok = check();
  console.log(`lint: ${name} ${ok ? 'ok' : 'FAILED'}`);
  if (!ok) failed++;
}
process.exitCode = failed > 0 ? 1 : 0;
