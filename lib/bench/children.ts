/** Child processes that measure: a fresh one for each trial, so that none finds what another left behind. */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { join } from 'node:path';

import { type ErrorCode, RedrafterError } from '../errors.js';
import { packageRoot } from '../package-root.js';
import type { TrialResult, TrialSpec } from './measure.js';
import type { Answer, Task } from './trial.js';

const PROGRAM = join(packageRoot, 'dist/bench/trial.js');

/** The last of what a program said, for errors. */
function tail(text: string): string {
  return text.trim().split('\n').slice(-3).join(' ').slice(-400);
}

/** Resolves when `child` has ended; ends it, and waits for that, when the signal fires. */
function ended(child: ChildProcess, signal: AbortSignal, kill: () => void): Promise<number | null> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) kill();
    else signal.addEventListener('abort', kill);
    child.once('error', reject);
    child.once('close', (code) => {
      signal.removeEventListener('abort', kill);
      if (signal.aborted)
        reject(new RedrafterError('ERR_ABORTED', 'the benchmark was ended', { cause: signal.reason }));
      else resolve(code);
    });
  });
}

async function ask(task: Task, signal: AbortSignal): Promise<Answer> {
  signal.throwIfAborted();
  const child = fork(PROGRAM, [], { stdio: ['ignore', 'ignore', 'pipe', 'ipc'], execArgv: [] });
  let answer: Answer | undefined;
  let errors = '';
  child.stderr?.on('data', (text: Buffer) => (errors += text.toString()));
  child.once('message', (message) => (answer = message as Answer));
  child.send(task, () => undefined); // if it ends before it reads this, its exit tells
  const code = await ended(child, signal, () => child.kill('SIGKILL'));
  if (answer === undefined) {
    throw new RedrafterError('ERR_INTERNAL', `a trial ended with ${code ?? 'a signal'} and no answer: ${tail(errors)}`);
  }
  if (answer.kind === 'error') {
    throw new RedrafterError(answer.code as ErrorCode, answer.message, { remedy: answer.remedy });
  }
  return answer;
}

export async function runTrial(spec: TrialSpec, signal: AbortSignal): Promise<TrialResult> {
  const answer = await ask({ kind: 'trial', spec }, signal);
  if (answer.kind !== 'trial') throw new RedrafterError('ERR_INTERNAL', 'a trial gave another answer');
  return answer.result;
}

/** Bytes per second that so many threads read from memory. */
export async function measureBandwidth(
  threads: number,
  signal: AbortSignal = new AbortController().signal,
): Promise<number> {
  const answer = await ask({ kind: 'bandwidth', threads }, signal);
  if (answer.kind !== 'bandwidth') throw new RedrafterError('ERR_INTERNAL', 'a measurement gave another answer');
  return answer.bytesPerSecond;
}

/** Runs a program in the folder of the package, and all that it starts ends with it. Resolves to its standard output. */
export async function runProgram(
  command: string,
  args: readonly string[],
  signal: AbortSignal,
  onLine: (line: string) => void = () => undefined,
): Promise<string> {
  signal.throwIfAborted();
  const isGroup = process.platform !== 'win32';
  const child = spawn(command, args, { cwd: packageRoot, stdio: ['ignore', 'pipe', 'pipe'], detached: isGroup });
  let [output, errors] = ['', ''];
  child.stdout.on('data', (text: Buffer) => (output += text.toString()));
  child.stderr.on('data', (text: Buffer) => {
    errors += text.toString();
    for (const line of text.toString().split('\n')) if (line !== '') onLine(line);
  });
  const kill = (): void => {
    if (isGroup && child.pid !== undefined) {
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch {
        // it has ended by itself
      }
    } else child.kill('SIGKILL');
  };
  let code: number | null;
  try {
    code = await ended(child, signal, kill);
  } catch (error) {
    if (error instanceof RedrafterError) throw error;
    throw new RedrafterError('ERR_FILE', `cannot run ${command}`, { cause: error });
  }
  if (code !== 0) {
    const remedy = `run it by itself to see all that it says: ${[command, ...args].join(' ')}`;
    throw new RedrafterError('ERR_INTERNAL', `${command} ended with ${code ?? 'a signal'}: ${tail(errors + output)}`, {
      remedy,
    });
  }
  return output;
}
