/** What every report says of where it was made. */
import { spawnSync } from 'node:child_process';
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';

import { isClone, packageRoot } from '../package-root.js';

/** The machine, before anything is measured. */
export interface Machine {
  cpu: string;
  /** Hardware threads that this process may use. */
  cores: number;
  memoryBytes: number;
  platform: string;
  node: string;
  /** Load average of the last minute: above 0 somebody else was at work. 0 on Windows, which has none. */
  load: number;
}

export function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? '',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    platform: `${process.platform}-${process.arch}`,
    node: process.version,
    load: loadavg()[0] ?? 0,
  };
}

/** The commit of a clone, with `+` where files differ from it; null in an installed package. */
export function commitOf(): string | null {
  if (!isClone()) return null;
  const git = (...args: string[]): string | null => {
    const { status, stdout } = spawnSync('git', args, { cwd: packageRoot, encoding: 'utf8' });
    return status === 0 ? stdout.trim() : null;
  };
  const commit = git('rev-parse', '--short', 'HEAD');
  if (commit === null) return null;
  return `${commit}${git('status', '--porcelain', '--untracked-files=no') === '' ? '' : '+'}`;
}

/** The day, as in 2026-11-26. */
export const today = (): string => new Date().toISOString().slice(0, 10);
