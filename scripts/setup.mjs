// All set-up from a fresh clone: checks tools, installs dependencies, builds the native addon and the TypeScript.
// Every step is skipped or incremental when there is nothing to do. `--native` or `--ts` runs that step alone.
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';

import { missingTool } from './toolchain.mjs';
import { entries, newest, npm, root, run, runTool } from './tools.mjs';

const started = Date.now();

/**
 * @param {string} message
 * @returns {never}
 */
function stop(message) {
  console.error(message);
  process.exit(1);
}

function built() {
  return existsSync(join(root, 'build/Release/redrafter.node'));
}

function installDependencies() {
  const installed = newest('node_modules/.package-lock.json');
  if (installed > 0 && installed >= newest('package-lock.json')) return;
  console.log('redrafter setup: npm ci');
  const [command, args] = npm('ci', '--no-audit', '--no-fund', '--loglevel=error');
  if (!run(command, args, { quiet: true })) stop('redrafter setup: npm ci failed, see above');
}

function buildNative() {
  if (existsSync(join(root, 'build/CMakeCache.txt'))) {
    // A clone that was moved or copied: CMake refuses a cache that belongs to another folder.
    const home = cached('CMAKE_HOME_DIRECTORY');
    if (home === undefined || !sameFolder(home)) rmSync(join(root, 'build'), { recursive: true });
  }
  if (!built()) console.log('redrafter setup: building native code (some minutes the first time)');
  const args = ['build', '-B', 'Release', '-p', String(availableParallelism()), '-l', 'error'];
  if (!runTool('cmake-js/bin/cmake-js', args, { quiet: true }))
    stop('redrafter setup: the native build failed, see above');
  const missing = cached('REDRAFTER_CUDA_MISSING');
  if (missing) console.log(`redrafter setup: the CUDA library was not built: ${missing}`);
}

/** What CMake keeps under a name. @param {string} name */
function cached(name) {
  const cache = readFileSync(join(root, 'build/CMakeCache.txt'), 'utf8');
  return new RegExp(`^${name}:INTERNAL=(.*)$`, 'm').exec(cache)?.[1];
}

/** @param {string} path */
function sameFolder(path) {
  if (!existsSync(path)) return false;
  const [a, b] = [statSync(path), statSync(root)];
  return a.ino === b.ino && a.dev === b.dev;
}

/** dist/ is CommonJS, so that one copy serves `require` and `import`; each entry's .mjs re-exports its names to modules. */
function buildTypeScript() {
  const dist = join(root, 'dist');
  const files = entries().map(({ file }) => file);
  const output = Math.min(...files.map((file) => newest(`dist/${file}.mjs`)));
  const sources = [
    'lib',
    'tsconfig.json',
    'tsconfig.build.json',
    'package.json',
    'package-lock.json',
    'scripts/setup.mjs',
  ];
  if (output > 0 && output >= newest(...sources)) return;
  console.log('redrafter setup: compiling TypeScript');
  rmSync(dist, { recursive: true, force: true });
  if (!runTool('typescript/bin/tsc', ['-p', 'tsconfig.build.json'])) {
    rmSync(dist, { recursive: true, force: true });
    stop('redrafter setup: tsc failed, see above');
  }
  writeFileSync(join(dist, 'package.json'), '{ "type": "commonjs" }\n');
  copyCharts(join(dist, 'vendor'));
  const require = createRequire(import.meta.url);
  for (const file of files) {
    const path = join(dist, file);
    /** @type {unknown} */
    const exported = require(`${path}.js`);
    const names = Object.keys(/** @type {object} */ (exported)).sort();
    writeFileSync(`${path}.d.mts`, `export * from './${basename(file)}.js';\n`);
    writeFileSync(`${path}.mjs`, `export { ${names.join(', ')} } from './${basename(file)}.js';\n`);
  }
}

/** The chart library of `redrafter bench --html` is one file, which goes into the package with its licences. @param {string} to */
function copyCharts(to) {
  const from = (/** @type {string} */ path) => join(root, 'node_modules', path);
  mkdirSync(to);
  copyFileSync(from('echarts/dist/echarts.min.js'), join(to, 'echarts.js'));
  const licences = ['echarts/LICENSE', 'echarts/NOTICE', 'echarts/licenses/LICENSE-d3', 'zrender/LICENSE'];
  const texts = licences.map((path) => `${path}\n\n${readFileSync(from(path), 'utf8')}`);
  writeFileSync(join(to, 'echarts.licences.txt'), texts.join('\n\n'));
}

const only = process.argv.slice(2);
if (only.some((arg) => arg !== '--native' && arg !== '--ts')) stop('usage: node scripts/setup.mjs [--native | --ts]');
const missing = only.includes('--ts') ? undefined : missingTool(!built());
if (missing !== undefined) stop(`redrafter needs ${missing.tool}: ${missing.advice}`);
installDependencies();
if (!only.includes('--ts')) buildNative();
if (!only.includes('--native')) buildTypeScript();
console.log(`redrafter setup: ready (${((Date.now() - started) / 1000).toFixed(1)} s)`);
