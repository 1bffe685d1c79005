// All set-up from a fresh clone: checks tools, installs dependencies, builds the native addon and the TypeScript.
// Every step is skipped or incremental when there is nothing to do. `--native` or `--ts` runs that step alone.
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';

import { capture, newest, root, run, runTool, windows } from './tools.mjs';

const started = Date.now();

/**
 * @param {string} message
 * @returns {never}
 */
function stop(message) {
  console.error(message);
  process.exit(1);
}

/**
 * @param {string} version
 * @param {[number, number]} least
 */
function atLeast(version, [major, minor]) {
  const [a = 0, b = 0] = version.split('.').map(Number);
  return a > major || (a === major && b >= minor);
}

function checkTools() {
  if (!atLeast(process.versions.node, [20, 17])) {
    stop(`redrafter needs Node.js >= 20.17, this is ${process.versions.node}: see https://nodejs.org/en/download`);
  }
  const cmake = /version (\d+\.\d+)/.exec(capture('cmake', ['--version']) ?? '')?.[1];
  if (cmake === undefined || !atLeast(cmake, [3, 20])) {
    stop(
      `redrafter needs CMake >= 3.20${cmake === undefined ? '' : `, found ${cmake}`}: ` +
        'sudo apt-get install cmake, brew install cmake, or https://cmake.org/download',
    );
  }
  if (windows) return; // CMake finds Visual Studio by itself, outside of PATH
  if (capture('ninja', ['--version']) === undefined && capture('make', ['--version']) === undefined) {
    stop('redrafter needs make or ninja: sudo apt-get install make, or xcode-select --install');
  }
  const compilers = process.env.CXX === undefined ? ['c++', 'g++', 'clang++'] : [process.env.CXX];
  const compiler = compilers.find((name) => capture(name, ['--version']) !== undefined);
  const advice = 'sudo apt-get install g++, or xcode-select --install';
  if (compiler === undefined) {
    stop(
      `redrafter needs a C++20 compiler (GCC >= 11 or Clang >= 14), found none of ${compilers.join(', ')}: ${advice}`,
    );
  }
  const probe = '#include <bit>\n#include <concepts>\n#include <span>\nint main() { return std::popcount(0u); }\n';
  if (!built() && capture(compiler, ['-std=c++20', '-fsyntax-only', '-x', 'c++', '-'], probe) === undefined) {
    stop(`redrafter needs a C++20 compiler (GCC >= 11 or Clang >= 14); ${compiler} is older or incomplete: ${advice}`);
  }
}

function built() {
  return existsSync(join(root, 'build/Release/redrafter.node'));
}

function installDependencies() {
  const installed = newest('node_modules/.package-lock.json');
  if (installed > 0 && installed >= newest('package-lock.json')) return;
  console.log('redrafter setup: npm ci');
  const npm = process.env.npm_execpath;
  const args = ['ci', '--no-audit', '--no-fund', '--loglevel=error'];
  const done =
    npm !== undefined && npm.endsWith('.js')
      ? run(process.execPath, [npm, ...args], { quiet: true })
      : run(windows ? 'npm.cmd' : 'npm', args, { quiet: true });
  if (!done) stop('redrafter setup: npm ci failed, see above');
}

function buildNative() {
  const cache = join(root, 'build/CMakeCache.txt');
  if (existsSync(cache)) {
    // A clone that was moved or copied: CMake refuses a cache that belongs to another folder.
    const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(readFileSync(cache, 'utf8'))?.[1];
    if (home === undefined || !sameFolder(home)) rmSync(join(root, 'build'), { recursive: true });
  }
  if (!built()) console.log('redrafter setup: building native code (some minutes the first time)');
  const args = ['build', '-B', 'Release', '-p', String(availableParallelism()), '-l', 'error'];
  if (!runTool('cmake-js/bin/cmake-js', args, { quiet: true }))
    stop('redrafter setup: the native build failed, see above');
}

/** @param {string} path */
function sameFolder(path) {
  if (!existsSync(path)) return false;
  const [a, b] = [statSync(path), statSync(root)];
  return a.ino === b.ino && a.dev === b.dev;
}

function buildTypeScript() {
  const output = newest('dist/index.js');
  if (output > 0 && output >= newest('lib', 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json')) return;
  console.log('redrafter setup: compiling TypeScript');
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  if (!runTool('typescript/bin/tsc', ['-p', 'tsconfig.build.json'])) {
    rmSync(join(root, 'dist'), { recursive: true, force: true });
    stop('redrafter setup: tsc failed, see above');
  }
}

const only = process.argv.slice(2);
if (only.some((arg) => arg !== '--native' && arg !== '--ts')) stop('usage: node scripts/setup.mjs [--native | --ts]');
if (!only.includes('--ts')) checkTools();
installDependencies();
if (!only.includes('--ts')) buildNative();
if (!only.includes('--native')) buildTypeScript();
console.log(`redrafter setup: ready (${((Date.now() - started) / 1000).toFixed(1)} s)`);
