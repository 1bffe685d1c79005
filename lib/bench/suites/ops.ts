/**
 * Kernels beside what the machine can do. The measuring program is native (bench/ops) and is built by CMake, so this suite
 * needs a clone with its tools.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';

import { RedrafterError } from '../../errors.js';
import { isClone, packageRoot } from '../../package-root.js';
import { getBackends } from '../../system.js';
import { runProgram } from '../children.js';
import type { Settings } from '../options.js';
import type { Progress } from '../progress.js';
import type { NotAvailable } from '../report.js';

export interface OpsRow {
  kernel: string;
  shape: string;
  level: string;
  dtype: string;
  threads: number;
  rows: number;
  /** Of a pass over all matrices for matmul, else of one run. */
  ms: number;
  bytesPerSecond: number;
  flopPerSecond: number;
  /** What reading memory gives, measured in the same run with the same threads. */
  readBytesPerSecond: number;
  /** What multiply-adds on registers give there, two operations each. */
  peakFlopPerSecond: number;
  /** Shares of both, and the larger of them: of what the machine allows. 0 to 1. */
  ofBandwidth: number;
  ofPeak: number;
  ofLimit: number;
  /** Time over that of the first number of rows: what verifying so many costs. */
  cost: number;
}

export interface OpsSuite {
  rows: OpsRow[];
}

interface MatmulRow {
  level: string;
  dtype: string;
  rows: number;
  threads: number;
  weightBytes: number;
  ms: number;
  bytesPerS: number;
  flopPerS: number;
  readBytesPerS: number;
  peakFlopPerS: number;
  cost: number;
}

const TARGET = 'redrafter_bench_ops';
const PROGRAM = join(packageRoot, 'build/testing', process.platform === 'win32' ? 'bench-ops.exe' : 'bench-ops');

function whyNot({ load }: Settings): string | undefined {
  if (!isClone() || !existsSync(join(packageRoot, 'bench/ops'))) {
    return 'it measures by a native program that is built from the sources in a clone of the repository, and this is an installed package';
  }
  if (!existsSync(join(packageRoot, 'build/CMakeCache.txt'))) return 'native code is not built yet: npm run build';
  if (load.device?.startsWith('cuda') === true) return 'it measures the CPU; for CUDA see bench/gpu/run.sh';
  return undefined;
}

function levelOf({ load }: Settings): string {
  const [, level] = load.device?.split(':') ?? [];
  const selected = level ?? getBackends().find(({ backend, available }) => backend === 'cpu' && available)?.level;
  if (selected === null || selected === undefined)
    throw new RedrafterError('ERR_BACKEND', 'no level of the CPU can be used');
  return selected;
}

function rowOf(row: MatmulRow): OpsRow {
  const { level, dtype, threads, rows, ms, cost } = row;
  const [ofBandwidth, ofPeak] = [row.bytesPerS / row.readBytesPerS, row.flopPerS / row.peakFlopPerS];
  return {
    ...{ kernel: 'matmul', shape: `${Math.round(row.weightBytes / 1e6)} MB`, level, dtype, threads, rows, ms },
    ...{ bytesPerSecond: row.bytesPerS, flopPerSecond: row.flopPerS },
    ...{ readBytesPerSecond: row.readBytesPerS, peakFlopPerSecond: row.peakFlopPerS },
    ...{ ofBandwidth, ofPeak, ofLimit: Math.max(ofBandwidth, ofPeak), cost },
  };
}

function argsOf(settings: Settings, json: string): string[] {
  const { load, quick } = settings;
  const dtype = load.dtype === undefined || load.dtype === 'auto' ? [] : ['--dtypes', load.dtype];
  const small = quick ? ['--rows', '1,4,16', '--megabytes', '40', '--seconds', '0.02'] : [];
  const threads = String(load.threads ?? availableParallelism());
  return ['--levels', levelOf(settings), '--threads', threads, ...dtype, ...small, '--json', json];
}

export async function runOps(
  settings: Settings,
  progress: Progress,
  signal: AbortSignal,
): Promise<OpsSuite | NotAvailable> {
  const reason = whyNot(settings);
  if (reason !== undefined) return { notAvailable: reason };
  progress.start('ops', 0);
  progress.begin('building');
  await runProgram('cmake', ['--build', 'build', '--config', 'Release', '--target', TARGET], signal);
  const directory = mkdtempSync(join(tmpdir(), 'redrafter-ops-'));
  try {
    progress.begin('measuring');
    const file = join(directory, 'ops.json');
    await runProgram(PROGRAM, argsOf(settings, file), signal);
    const { matmul } = JSON.parse(readFileSync(file, 'utf8')) as { matmul: MatmulRow[] };
    return { rows: matmul.map(rowOf) };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
