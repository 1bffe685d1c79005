import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';

import type { Command } from 'commander';

import { RedrafterError } from '../errors.js';
import { isClone, packageRoot } from '../package-root.js';
import { version } from '../system.js';

/** What scripts/toolchain.mjs prints, or null. */
interface MissingTool {
  tool: string;
  advice: string;
}

interface NodeApiHeaders {
  include_dir: string;
  def_paths: { node_api_def: string };
}

export function addBuild(program: Command): void {
  program
    .command('build')
    .description('compile the native addon from the sources in this package, where no prebuilt binary fits')
    .action(build);
}

/** Compiles into build/Release of the package, where the loader looks before it looks for prebuilt binaries. */
function build(): void {
  if (isClone()) {
    throw new RedrafterError('ERR_NATIVE', 'this is a clone, not an installed package', { remedy: 'npm run build' });
  }
  const missing = missingTool();
  if (missing !== null) {
    throw new RedrafterError('ERR_NATIVE', `compiling needs ${missing.tool}`, { remedy: missing.advice });
  }
  const work = join(packageRoot, 'build/cmake');
  const output = join(packageRoot, 'build/Release');
  makeFolder(output);
  rmSync(work, { recursive: true, force: true });
  cmake(['-S', packageRoot, '-B', work, '-DCMAKE_BUILD_TYPE=Release', '-DREDRAFTER_TESTING=OFF', '-DREDRAFTER_CUDA=OFF', ...settings(work, output)]); // prettier-ignore
  const jobs = String(availableParallelism());
  cmake(['--build', work, '--config', 'Release', '--target', 'redrafter', '--parallel', jobs]);
  rmSync(work, { recursive: true });
  process.stdout.write(`redrafter ${version()} is built: ${join(output, 'redrafter.node')}\n`); // loads it
}

function missingTool(): MissingTool | null {
  const script = join(packageRoot, 'scripts/toolchain.mjs');
  const { stdout } = spawnSync(process.execPath, [script], { encoding: 'utf8' });
  return JSON.parse(stdout) as MissingTool | null;
}

/** What a Node-API addon needs on each platform: headers, and symbols that the running program provides. */
function settings(work: string, output: string): string[] {
  const headers = createRequire(__filename)('node-api-headers') as NodeApiHeaders;
  const common = [
    `-DCMAKE_JS_INC=${headers.include_dir}`,
    `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY_RELEASE=${output}`,
    `-DCMAKE_RUNTIME_OUTPUT_DIRECTORY_RELEASE=${output}`, // where Windows puts a DLL
  ];
  if (process.platform === 'darwin') return [...common, '-DCMAKE_SHARED_LINKER_FLAGS=-undefined dynamic_lookup'];
  if (process.platform !== 'win32') return common;
  const library = join(work, 'node.lib');
  return [
    ...common,
    `-DCMAKE_JS_NODELIB_DEF=${headers.def_paths.node_api_def}`,
    `-DCMAKE_JS_NODELIB_TARGET=${library}`,
    `-DCMAKE_JS_LIB=${library}`,
    '-DCMAKE_MSVC_RUNTIME_LIBRARY=MultiThreaded',
  ];
}

function cmake(args: string[]): void {
  const { status } = spawnSync('cmake', args, { cwd: packageRoot, stdio: 'inherit' });
  if (status !== 0) {
    throw new RedrafterError('ERR_NATIVE', 'compiling failed, see above', {
      remedy: 'GCC >= 11, Clang >= 14 or Visual Studio 2022 is needed; choose a compiler with the variable CXX',
    });
  }
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true });
  } catch (cause) {
    throw new RedrafterError('ERR_FILE', `cannot write to ${path}`, {
      cause,
      remedy: 'run this as a user who may write to the installed package',
    });
  }
}
