// AddressSanitizer and UndefinedBehaviorSanitizer on the stock Node.js: builds the addons with both into build/asan,
// preloads the sanitizer, proves with a canary that it works, and runs the native and lossless tests under it.
import { existsSync, mkdirSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { capture, root } from './tools.mjs';

const require = createRequire(import.meta.url);
const build = join(root, 'build/asan');
const output = join(build, 'build/Release'); // node-gyp-build looks for build/Release below the folder it is given

/** @param {string} message @returns {never} */
function stop(message) {
  console.error(message);
  process.exit(1);
}

/** @param {string} command @param {string[]} args @param {NodeJS.ProcessEnv} [env] */
function must(command, args, env = {}) {
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0) stop(`sanitize: ${command} ${args[0] ?? ''} failed`);
}

const library = capture('gcc', ['-print-file-name=libasan.so'])?.trim() ?? '';
if (!existsSync(library)) stop('sanitize needs GCC with libasan: sudo apt-get install g++');

mkdirSync(build, { recursive: true });
/** @type {unknown} */
const headersPackage = require('node-api-headers');
const { include_dir: headers } = /** @type {{ include_dir: string }} */ (headersPackage);
must('cmake', [
  ...['-S', root, '-B', build, '-DREDRAFTER_SANITIZE=ON', '-DCMAKE_BUILD_TYPE=RelWithDebInfo'],
  `-DCMAKE_JS_INC=${headers}`,
  `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${output}`,
]);
must('cmake', ['--build', build, '-j', String(availableParallelism())]);

const env = {
  LD_PRELOAD: library,
  // V8 never frees what it holds at exit, so leaks of the process as a whole say nothing.
  ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=0:exitcode=99',
  UBSAN_OPTIONS: 'print_stacktrace=1',
  REDRAFTER_PREBUILD: build,
  REDRAFTER_TESTING_ADDON: join(build, 'testing/redrafter_testing.node'),
};

// A sanitizer that is silently off would pass everything: a planted overflow must be caught.
for (const [fault, report] of [
  ['heapOverflow', 'heap-buffer-overflow'],
  ['signedOverflow', 'signed integer overflow'],
]) {
  const { status, stderr } = spawnSync(
    process.execPath,
    ['-e', `require(${JSON.stringify(env.REDRAFTER_TESTING_ADDON)}).canary.${fault}()`],
    { env: { ...process.env, ...env }, encoding: 'utf8' },
  );
  if (status === 0 || !stderr.includes(report ?? '')) stop(`sanitize: the canary ${fault} was not caught:\n${stderr}`);
  console.log(`sanitize: canary ${fault} caught`);
}

// Without test/host/memory: a sanitizer needs memory of its own.
const host = ['collection', 'endings', 'exit', 'states', 'token-ids', 'workers'].map((name) => `test/host/${name}`);
const all = ['test/native', 'test/lossless/tiny.test.ts', 'test/lossless/kernels-engine.test.ts', 'test/lib', ...host];
const tests = process.argv.length > 2 ? process.argv.slice(2) : all;
must(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', '--testTimeout=600000', ...tests], env);
console.log('sanitize: no finding');
