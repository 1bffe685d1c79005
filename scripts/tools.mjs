// What the scripts share. Node built-ins only: setup runs before anything is installed.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));
export const windows = process.platform === 'win32';

/**
 * What users import: names (`redrafter/server`) and their files in lib/ and dist/, without ending (`server/index`), as
 * package.json lists them in `exports`.
 * @returns {{ name: string, file: string }[]}
 */
export function entries() {
  /** @type {unknown} */
  const json = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const { name, exports } =
    /** @type {{ name: string, exports: Record<string, { require: { default: string } } | string> }} */ (json);
  return Object.entries(exports).flatMap(([path, target]) =>
    typeof target === 'string'
      ? []
      : [{ name: name + path.slice(1), file: target.require.default.replace(/^\.\/dist\/|\.js$/g, '') }],
  );
}

/**
 * Runs a program; with `quiet` its output is kept and printed only if it fails.
 * @param {string} command
 * @param {string[]} args
 * @param {{ quiet?: boolean }} [options]
 * @returns {boolean} whether it succeeded
 */
export function run(command, args, { quiet = false } = {}) {
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: quiet ? ['ignore', 'pipe', 'pipe'] : 'inherit',
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (result.status === 0) return true;
  if (result.error !== undefined) console.error(`cannot run ${command}: ${result.error.message}`);
  else if (quiet) process.stderr.write(result.stdout + result.stderr);
  return false;
}

/**
 * Runs a JavaScript program of a dependency with this Node.
 * @param {string} file relative to node_modules
 * @param {string[]} args
 * @param {{ quiet?: boolean }} [options]
 */
export function runTool(file, args, options) {
  return run(process.execPath, [join(root, 'node_modules', file), ...args], options);
}

/**
 * How npm is started: the one that started this process, else the one in PATH.
 * @param {string[]} args
 * @returns {[command: string, args: string[]]}
 */
export function npm(...args) {
  const path = process.env.npm_execpath;
  if (path !== undefined && /npm-cli\.js$/.test(path)) return [process.execPath, [path, ...args]];
  return [windows ? 'npm.cmd' : 'npm', args];
}

/**
 * Standard output of a program, or undefined if it cannot be run or fails.
 * @param {string} command
 * @param {string[]} args
 * @param {string} [input]
 */
export function capture(command, args, input) {
  const result = spawnSync(command, args, { cwd: root, encoding: 'utf8', input });
  return result.status === 0 ? result.stdout : undefined;
}

/**
 * The newest modification time, in ms, of files and folders (searched through); 0 for what does not exist.
 * @param {string[]} paths relative to the package root
 * @returns {number}
 */
export function newest(...paths) {
  return Math.max(0, ...paths.map((path) => newestAt(join(root, path))));
}

/**
 * @param {string} path
 * @returns {number}
 */
function newestAt(path) {
  if (!existsSync(path)) return 0;
  const { mtimeMs } = statSync(path);
  if (!statSync(path).isDirectory()) return mtimeMs;
  return Math.max(mtimeMs, ...readdirSync(path).map((name) => newestAt(join(path, name))));
}
