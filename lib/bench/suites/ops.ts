/**
 * Kernels beside what the machine can do. The measuring programs are native (bench/ops, bench/lab) and built by CMake, so this
 * suite needs a clone with its tools.
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
  /** Of its weights; f32, as all else is on the CPU, where it has none. */
  dtype: string;
  threads: number;
  rows: number;
  /** Of a pass over all matrices for matmul, else of one run. */
  ms: number;
  bytesPerSecond: number;
  flopPerSecond: number;
  /** What reading memory gives with the same threads: for matmul measured in the same run, else in turns with the kernel. */
  readBytesPerSecond: number;
  /** What the multiply-adds that this dtype is multiplied by give on registers, two operations each. */
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

/** What `lab kernels --device cpu` writes of one kernel. */
interface LabRow {
  kernel: string;
  shape: string;
  dtype: string;
  rows: number;
  bytes: number;
  flops: number;
  us: number;
  readBytesPerSecond: number;
  peakFlopPerSecond: number;
}

const TARGETS = ['redrafter_bench_ops', 'redrafter_lab'] as const;
const programOf = (name: string): string =>
  join(packageRoot, 'build/testing', process.platform === 'win32' ? `${name}.exe` : name);

function whyNot({ load }: Pick<Settings, 'load'>): string | undefined {
  if (!isClone()) {
    return 'it measures by a native program that is built from the sources in a clone of the repository, and this is an installed package';
  }
  if (!existsSync(join(packageRoot, 'bench/ops/ops.cc')))
    return 'bench/ops, the program that measures, is not in this clone';
  if (!existsSync(join(packageRoot, 'build/CMakeCache.txt'))) return 'native code is not built yet: npm run build';
  if (load.device?.startsWith('cuda') === true) return 'it measures the CPU; for CUDA see bench/gpu/run.sh';
  return undefined;
}

function levelOf({ load }: Pick<Settings, 'load'>): string {
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

function labRows({ level, threads, kernels }: { level: string; threads: number; kernels: LabRow[] }): OpsRow[] {
  return kernels.map((row) => {
    const { kernel, shape, dtype, rows, us, readBytesPerSecond, peakFlopPerSecond } = row;
    const least = kernels.find((o) => o.kernel === kernel && o.shape === shape && o.dtype === dtype) ?? row;
    const [bytesPerSecond, flopPerSecond] = [(row.bytes / us) * 1e6, (row.flops / us) * 1e6];
    const [ofBandwidth, ofPeak] = [bytesPerSecond / readBytesPerSecond, flopPerSecond / peakFlopPerSecond];
    return {
      ...{ kernel, shape, level, dtype, threads, rows, ms: us / 1000, bytesPerSecond, flopPerSecond },
      ...{ readBytesPerSecond, peakFlopPerSecond, ofBandwidth, ofPeak, ofLimit: Math.max(ofBandwidth, ofPeak) },
      cost: us / least.us,
    };
  });
}

/** What weights are measured in: as asked for, else in 16 and in 8 bits. */
const dtypesOf = (asked: string | undefined): string => (asked === undefined || asked === 'auto' ? 'bf16,q8_0' : asked);

/** Runs a program that writes JSON to the file that --json names. */
async function measured<T>(name: string, args: readonly string[], signal: AbortSignal): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'redrafter-ops-'));
  try {
    const file = join(directory, 'ops.json');
    await runProgram(programOf(name), [...args, '--json', file], signal);
    return JSON.parse(readFileSync(file, 'utf8')) as T;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function build(targets: readonly (typeof TARGETS)[number][], signal: AbortSignal): Promise<void> {
  await runProgram('cmake', ['--build', 'build', '--config', 'Release', '--target', ...targets], signal);
}

/** Why `measureSteps` cannot work here; undefined where it can, after this has built what it needs. */
export async function prepareSteps(signal: AbortSignal = new AbortController().signal): Promise<string | undefined> {
  const reason = whyNot({ load: { device: 'cpu' } });
  if (reason === undefined) await build(['redrafter_bench_ops'], signal);
  return reason;
}

/** Passes of a whole model by their rows, all of which get logits: milliseconds of the shortest of those that fit in a time. */
export async function measureSteps(
  model: string,
  { dtype, threads, rows }: { dtype: string; threads: number; rows: readonly number[] },
  signal: AbortSignal = new AbortController().signal,
): Promise<{ rows: number; ms: number }[]> {
  const level = levelOf({ load: { device: 'cpu' } });
  const args = ['--model', model, '--levels', level, '--dtypes', dtype, '--threads', String(threads)];
  const { passes } = await measured<{ passes: (MatmulRow & { op?: string })[] }>('bench-ops', [...args, '--rows', rows.join()], signal); // prettier-ignore
  return passes.filter(({ op }) => op === undefined).map((pass) => ({ rows: pass.rows, ms: pass.ms }));
}

export async function runOps(
  settings: Settings,
  progress: Progress,
  signal: AbortSignal,
): Promise<OpsSuite | NotAvailable> {
  const reason = whyNot(settings);
  if (reason !== undefined) return { notAvailable: reason };
  const { load, quick } = settings;
  const [level, threads] = [levelOf(settings), String(load.threads ?? availableParallelism())];
  progress.start('ops', 3);
  progress.begin('building');
  await build(TARGETS, signal);
  progress.begin('matrix products');
  const dtypes = ['--dtypes', dtypesOf(load.dtype)];
  const small = quick ? ['--rows', '1,4,16', '--megabytes', '40', '--seconds', '0.02'] : [];
  const args = ['--levels', level, '--threads', threads, ...dtypes, ...small];
  const { passes } = await measured<{ passes: MatmulRow[] }>('bench-ops', args, signal);
  if (passes.length === 0) throw new RedrafterError('ERR_INTERNAL', 'bench-ops measured nothing');
  progress.begin('other kernels');
  const size = quick ? ['--model', 'tiny', '--seconds', '0.001', '--megabytes', '4'] : ['--model', 'small'];
  const lab = ['kernels', '--device', `cpu:${level}`, '--threads', threads, ...size, ...dtypes];
  const drafter = ['--drafter-dtypes', dtypesOf(load.drafterDtype)];
  const kernels = await measured<Parameters<typeof labRows>[0]>('lab', [...lab, ...drafter], signal);
  return { rows: [...passes.map(rowOf), ...labRows(kernels)] };
}
