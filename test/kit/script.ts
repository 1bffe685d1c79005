/** Runs modules in processes of their own, to see what a process sees: exits, signals, memory, threads. */
import { execFile } from 'node:child_process';

import type { TinyModel } from '../lib/tiny.js';

/** What a program imports. */
export const INDEX = new URL('../../dist/index.mjs', import.meta.url).href;
/** The boundary itself, for scripts that drive an engine without the library. */
export const NATIVE = new URL('../../dist/native.js', import.meta.url).href;

export interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** The outcome of a process that says nothing on stderr. */
export const exits = (code: number, stdout = ''): Outcome => ({ code, signal: null, stdout, stderr: '' });

const PRELUDE = `
  import { Model } from ${JSON.stringify(INDEX)};
  import { readFileSync } from 'node:fs';
  import { setTimeout as wait } from 'node:timers/promises';
  const load = (options) => Model.load(paths.model, { drafter: paths.drafter, threads: 1, device: 'cpu', ...options });
  const long = { maxTokens: 4000, ignoreEos: true };
  /** A number of /proc/self/status: Threads, VmRSS, VmHWM. */
  const status = (key) => Number(new RegExp(key + ':\\\\s*(\\\\d+)').exec(readFileSync('/proc/self/status', 'utf8'))[1]);
  /** Collects garbage until something holds; tells whether it does. */
  const collected = async (holds) => {
    for (let i = 0; i < 200; i++) {
      gc();
      await wait(5);
      if (holds()) return true;
    }
    return false;
  };
`;

export interface ScriptOptions {
  /** For Node itself. */
  flags?: string[];
  env?: NodeJS.ProcessEnv;
  /** Milliseconds after which the process is killed. Default: 120,000. */
  timeout?: number;
}

/**
 * A function that runs the text of a module. The module finds `Model`, `load()` for the tiny model, the options
 * `long` of a generation that does not end soon, `paths`, `wait(ms)`, and under `--expose-gc` `collected(holds)`.
 */
export function scriptRunner(paths: TinyModel): (body: string, options?: ScriptOptions) => Promise<Outcome> {
  return (body, { flags = [], env = {}, timeout = 120_000 } = {}) => {
    const args = [...flags, '--input-type=module', '-e', `const paths = ${JSON.stringify(paths)};${PRELUDE}${body}`];
    const options = { timeout, maxBuffer: 1 << 26, env: { ...process.env, ...env } };
    return new Promise((resolve) => {
      const child = execFile(process.execPath, args, options, (_, stdout, stderr) => {
        resolve({ code: child.exitCode, signal: child.signalCode, stdout, stderr });
      });
    });
  };
}
