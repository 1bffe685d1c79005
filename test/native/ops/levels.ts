/**
 * What the tables of cases run on. A vitest project tests either the levels of the CPU backend, or the CUDA kernels:
 * emulated on the host ("cuda:host"), and on a device ("cuda") where there is one. REDRAFTER_TEST_LEVELS=kernels
 * chooses the kernels (vitest.config.ts). All levels of a project have the properties of their backend, below.
 */
import { describe } from 'vitest';

import { decode, encode } from '../../kit/bf16.js';
import type { DType, MatrixArg } from '../../kit/ops.js';
import { testing } from '../../kit/testing.js';

export const ops = testing.ops;

export interface Properties {
  /** Dtypes of weights. */
  dtypes: readonly DType[];
  /** Dtypes of K and V in the cache. */
  caches: readonly DType[];
  /** Whether a product with a matrix takes its other operand rounded to the dtype of the matrix. */
  roundsInputs: boolean;
  /**
   * Rounding errors of a sum of n products, as a factor on the sum of their magnitudes: gamma of so many roundings,
   * each of at most `unit`.
   */
  roundings(n: number): number;
  unit: number;
  /** Exponentials whose product one of a softmax may be: more where parts of it have maxima of their own. */
  exponentials: number;
  /** Roundings of the sum of n squares under a norm. */
  normRoundings(n: number): number;
  /** Launches of more rows than 64 that row invariance is checked on, where large ones are computed in another way. */
  largeLaunches: readonly number[];
  /** Orders of the work that must give the same bits: numbers of threads, or seeds of the emulator's order. */
  orders: readonly number[];
  /** Limits on an op's workspace under which it must give the same bits. */
  workspaces: readonly (number | null)[];
}

/** fp32, one chain of fused or separate products and additions; 16 interleaved sums under a norm and their fold. */
const CPU: Properties = {
  dtypes: ['f32', 'f16', 'bf16'],
  caches: ['f32'],
  roundsInputs: false,
  roundings: (n) => n,
  unit: 2 ** -24,
  exponentials: 1,
  normRoundings: (n) => Math.ceil(n / 16) + 1 + 4,
  largeLaunches: [],
  orders: [1, 2],
  workspaces: [null],
};

/**
 * Tensor cores: a product of two 16-bit numbers is exact. An instruction adds up to 16 of them to its accumulator; how
 * it does so is not documented. What has been observed: all terms are shifted to the exponent of the largest and cut
 * off, then the sum is cut off, so each of the 17 terms and the result loses less than one unit in the last place of
 * the largest magnitude, 2^-23 of it at most. 18 roundings of 2^-23 per 16 products cover that as well as any
 * order of additions rounded to nearest; one more for each joins partial sums of a K that is split, at most one per
 * instruction. Under a norm, at least 32 interleaved sums, and a fold in which at most log2 n additions in a row are
 * not of zeros.
 */
const CUDA: Properties = {
  dtypes: ['f16', 'bf16'],
  caches: ['f16', 'bf16'],
  roundsInputs: true,
  roundings: (n) => 19 * Math.ceil(n / 16),
  unit: 2 ** -23,
  exponentials: 2,
  normRoundings: (n) => Math.ceil(n / 32) + 1 + Math.ceil(Math.log2(n)),
  largeLaunches: [65, 100, 130],
  orders: [1, 2, 3, 4],
  workspaces: [null, 0, 8192],
};

/** Whether this project tests the CUDA kernels. */
export const KERNELS = process.env['REDRAFTER_TEST_LEVELS'] === 'kernels';
export const PROPERTIES = KERNELS ? CUDA : CPU;

/** Levels under test: of the CPU the plain-loop oracle first. */
export const LEVELS = KERNELS ? ['cuda:host', 'cuda'] : ops.levels();

/** REDRAFTER_TEST_CUDA=1 says that there is a device: tests fail without one, instead of being skipped. */
const missing = (level: string): boolean =>
  ops.missing(level) !== null && !(level === 'cuda' && process.env['REDRAFTER_TEST_CUDA'] === '1');

/** How many of so many random trials are made: emulated kernels are slow. */
export const trials = (count: number, thinning = 25): number => (KERNELS ? Math.ceil(count / thinning) : count);

/** `body` for every level; reported as skipped where a level cannot run. */
export function describeLevels(name: string, body: (level: string) => void): void {
  for (const level of LEVELS) {
    describe.skipIf(missing(level))(`${name} ${level}`, () => {
      body(level);
    });
  }
}

/** What does not depend on a level, or on the CPU's alone: once, in the project of the CPU. */
export function describeOnce(name: string, body: () => void): void {
  if (!KERNELS) describe(name, body);
}

/** What `body` gives under a limit on the workspace. */
export function withWorkspace<T>(bytes: number | null, body: () => T): T {
  ops.limitWorkspace(bytes);
  try {
    return body();
  } finally {
    ops.limitWorkspace(null);
  }
}

/** The values as a product with a matrix of this dtype takes them. */
export function rounded(dtype: MatrixArg['dtype'], values: Float32Array): Float32Array {
  return PROPERTIES.roundsInputs ? decode(dtype, encode(dtype as DType, values)) : values;
}

/** Half a unit in the last place, relative; below 2^-14 f16 has a fixed one, so also an absolute part. */
export function halfUnit(dtype: DType): { relative: number; absolute: number } {
  if (dtype === 'f32') return { relative: 0, absolute: 0 };
  return dtype === 'f16' ? { relative: 2 ** -11, absolute: 2 ** -25 } : { relative: 2 ** -8, absolute: 0 };
}
