/**
 * Before the tests of this folder: packs the package (or takes the tarball that REDRAFTER_TARBALL names, as a release
 * does) and installs it with npm into an empty folder outside of the repository, with a PATH that has node and npm but
 * no compiler, CMake or make.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';

import type { TestProject } from 'vitest/node';

import { npm, root } from '../../scripts/tools.mjs';
import { environment } from './run.js';

declare module 'vitest' {
  interface ProvidedContext {
    /** Path of the packed tarball. */
    tarball: string;
    /** Folder that the tarball is installed in. */
    installed: string;
    /** PATH with node and npm only. */
    path: string;
  }
}

/** A folder with node, npm and npx and nothing else but the shell that npx starts commands with. */
function onlyNodeAndNpm(folder: string): string {
  if (process.platform === 'win32') return dirname(process.execPath); // node.exe, npm.cmd, npx.cmd
  mkdirSync(folder);
  symlinkSync(process.execPath, join(folder, 'node'));
  symlinkSync('/bin/sh', join(folder, 'sh'));
  for (const name of ['npm', 'npx']) {
    const found = (process.env.PATH ?? '').split(delimiter).find((path) => existsSync(join(path, name)));
    if (found === undefined) throw new Error(`${name} is not in PATH`);
    symlinkSync(realpathSync(join(found, name)), join(folder, name));
  }
  return folder;
}

export default function setup({ provide }: TestProject): () => void {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'redrafter-package-')));
  const teardown = (): void => {
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const pack = [join(root, 'scripts/package.mjs'), '--out', folder];
    const tarball =
      process.env.REDRAFTER_TARBALL ??
      execFileSync(process.execPath, pack, { encoding: 'utf8' }).trimEnd().split('\n').at(-1) ??
      '';
    const path = onlyNodeAndNpm(join(folder, 'bin'));
    const installed = join(folder, 'app');
    mkdirSync(installed);
    writeFileSync(join(installed, 'package.json'), '{ "private": true }\n');
    const [command, args] = npm(
      'install',
      tarball,
      '--no-audit',
      '--no-fund',
      '--loglevel=error',
      '--foreground-scripts',
    );
    const output = execFileSync(command, args, { cwd: installed, env: environment(path), encoding: 'utf8' });
    if (/node-gyp|cmake/i.test(output)) throw new Error(`something was compiled at install time:\n${output}`);
    provide('tarball', tarball);
    provide('installed', installed);
    provide('path', path);
  } catch (error) {
    teardown();
    throw error;
  }
  return teardown;
}
