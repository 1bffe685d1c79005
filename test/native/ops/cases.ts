/** What every backend is tested on. Data only: a new backend or level runs the same tables. */
import { describe } from 'vitest';

import { range } from '../../kit/arrays.js';
import { KERNELS, LEVELS, PROPERTIES } from './levels.js';
import type { CellArgs, DType, RopeTableArgs } from '../../kit/ops.js';

/** Levels whose results are the oracle's bit for bit where an op is one chain of fused multiply-adds. */
export const FUSED = LEVELS.filter((level) => ['avx2', 'avx512', 'avx512vnni', 'neon'].includes(level));
/** Whether two vector levels run here that must agree bit for bit. */
const PAIR = FUSED.length >= 2;
/** What two such levels must agree on; reported as skipped where only one runs. */
export function describePair(name: string, body: () => void): void {
  if (!KERNELS) describe.runIf(PAIR)(name, body);
}
export const DTYPES = PROPERTIES.dtypes;
/** The dtype in which weights of other tests are given: the finest there is. */
export const FINEST = DTYPES[0] ?? 'f32';

export interface MatmulCase {
  rows: number;
  n: number;
  k: number;
  dtype: DType;
  bias: boolean;
  residual: 'none' | 'apart' | 'in place';
  /** Elements between the end of a row and the next, of x and y. */
  gap: number;
}

/** rows, n, k; the last are large enough to be shared between threads, as is some case of every table here. */
const MATMUL_SHAPES: [number, number, number][] = [
  [1, 1, 1],
  [1, 16, 16],
  [2, 17, 15],
  [3, 33, 31],
  [4, 5, 130],
  [5, 48, 64],
  [6, 65, 40],
  [7, 100, 33],
  [8, 129, 20],
  [9, 300, 7],
  [16, 31, 255],
  [17, 160, 48],
  [64, 37, 29],
  [2, 64, 1500],
  [40, 300, 40],
  [33, 700, 16],
  [3, 40, 2100],
  [1, 1500, 33],
  [70, 130, 100],
];

export const matmulCases: MatmulCase[] = DTYPES.flatMap((dtype) =>
  MATMUL_SHAPES.map(([rows, n, k], i) => ({
    rows,
    n,
    k,
    dtype,
    bias: i % 2 === 1,
    residual: (['none', 'apart', 'in place'] as const)[i % 3] ?? 'none',
    gap: i % 4 === 3 ? 5 : 0,
  })),
);

/** Rows with equal maxima and other awkward rows: [logits, expected argmax]. */
export const argmaxCases: [logits: number[], token: number][] = [
  [[1, 3, 3, 2], 1],
  [[3, 3, 3, 3], 0],
  [[-0, 0, -0], 0],
  [[0, -0, 0], 0],
  [[-1, -0, 0], 1],
  [[NaN, 1, 2], 2],
  [[NaN, NaN, -5], 2],
  [[2, NaN, 2], 0],
  [[NaN, NaN, NaN], -1],
  [[-Infinity, -Infinity], 0],
  [[NaN, -Infinity, -Infinity], 1],
  [[-Infinity, -3e38], 1],
  [[1, Infinity, Infinity], 1],
  [[7], 0],
  [[...range(1000).map((i) => i % 7), 6], 6],
  [[...range(4000).map((i) => i % 1900), 1900, 1900], 4000],
];
export const argmaxFaults = (argmax: (logits: Float32Array) => number): string[] =>
  argmaxCases.filter(([row, expected]) => argmax(Float32Array.from(row)) !== expected).map(([row]) => row.join());

/** rows, groups, dim */
export const normCases: [number, number, number][] = [
  [1, 1, 1],
  [3, 1, 15],
  [2, 1, 16],
  [5, 1, 17],
  [4, 3, 24],
  [9, 2, 80],
  [1, 8, 128],
  [6, 1, 1000],
  [70, 1, 3000],
  [9, 30, 800],
];

/** rows, dim */
export const actCases: [number, number][] = [
  [1, 1],
  [3, 15],
  [2, 16],
  [5, 33],
  [2, 511],
  [3, 513],
  [1, 1300],
  [20, 2600],
];

export const HEAD_DIMS = [8, 24, 64, 80, 128, 10, 96, 256];

export interface AttentionCase {
  heads: number;
  kvHeads: number;
  headDim: number;
}

export const attentionCases: AttentionCase[] = [
  ...HEAD_DIMS.map((headDim, i) => ({ heads: 4, kvHeads: [1, 2, 4][i % 3] ?? 1, headDim })),
  ...[1, 2, 3, 4, 5, 6, 7, 8].map((group) => ({ heads: 2 * group, kvHeads: 2, headDim: group % 2 ? 24 : 64 })),
];

export interface CellCase {
  cell: CellArgs['cell'];
  rows: number;
  hidden: number;
  dtype: DType;
  bias: boolean;
}

export const cellCases: CellCase[] = (['sum', 'elman', 'gru'] as const).flatMap((cell) =>
  DTYPES.flatMap((dtype) =>
    [
      [1, 8],
      [3, 17],
      [5, 64],
      [9, 100],
      [64, 33],
      [40, 100],
      [3, 48],
      [40, 160],
    ].map(([rows = 1, hidden = 1], i) => ({ cell, rows, hidden, dtype, bias: i % 2 === 0 })),
  ),
);

/** rows, exit, dtype, bias */
export const residualCases: [number, number, DType, boolean][] = DTYPES.flatMap((dtype) =>
  [
    [1, 8],
    [2, 31],
    [7, 64],
    [12, 90],
    [64, 17],
    [40, 130],
  ].map(([rows = 1, exit = 1], i): [number, number, DType, boolean] => [rows, exit, dtype, i % 2 === 1]),
);

/** rows, exit, dtype, bias, hidden; the last are long enough for x to come in several parts. */
export const mixCases: [number, number, DType, boolean, number][] = [
  ...residualCases.map(([rows, exit, dtype, bias], i): [number, number, DType, boolean, number] => {
    return [rows, exit, dtype, bias, 30 + i];
  }),
  [40, 20, 'bf16', true, 300],
  [3, 18, 'f16', false, 1100],
];

/** rows, exit, draft vocabulary, top; the last for parts of z, and for more tiles of the vocabulary than threads. */
export const headCases: [number, number, number, number][] = [
  [1, 16, 1, 1],
  [2, 24, 15, 4],
  [3, 33, 100, 10],
  [5, 64, 257, 64],
  [45, 20, 130, 45],
  [2, 8, 5, 9],
  [45, 12, 1200, 10],
  [4, 40, 5000, 64],
  [2, 1100, 140, 8],
  [40, 300, 140, 12],
  [1, 4, 132000, 6],
];

/** Scalings as checkpoints have them: Llama 3.1, Qwen2.5 with YaRN, DeepSeek-like mscale keys, gpt-oss's truncate. */
export const ropeCases: RopeTableArgs[] = [
  { scaling: 'none', theta: 10000, headDim: 64, positions: 600 },
  { scaling: 'none', theta: 1e6, headDim: 8, positions: 3 },
  { scaling: 'linear', theta: 10000, headDim: 80, positions: 300, factor: 2.5 },
  {
    scaling: 'llama3',
    theta: 500000,
    headDim: 128,
    positions: 200,
    factor: 8,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalMaxPositions: 8192,
  },
  { scaling: 'yarn', theta: 1e6, headDim: 128, positions: 200, factor: 4, originalMaxPositions: 32768 },
  {
    scaling: 'yarn',
    theta: 10000,
    headDim: 64,
    positions: 200,
    factor: 40,
    originalMaxPositions: 4096,
    mscale: 0.707,
    mscaleAllDim: 1,
  },
  {
    scaling: 'yarn',
    theta: 150000,
    headDim: 64,
    positions: 200,
    factor: 32,
    originalMaxPositions: 4096,
    truncate: false,
  },
  {
    scaling: 'yarn',
    theta: 10000,
    headDim: 24,
    positions: 100,
    factor: 2,
    originalMaxPositions: 64,
    attentionFactor: 1.25,
    betaFast: 16,
    betaSlow: 2,
  },
];
