/** The check that a row's bits do not depend on how many rows, or which, share the launch. */
import { at, columns, joinBytes, range, rowOf } from '../../kit/arrays.js';
import { encode, randomMatrix } from '../../kit/bf16.js';
import { differingBytes } from '../../kit/compare.js';
import { NEIGHBOURS, surround } from '../../kit/poison.js';
import type { MatrixArg } from '../../kit/ops.js';
import { quantised } from '../../kit/quantised.js';
import { Random } from '../../kit/random.js';
import { DTYPES, FINEST } from './cases.js';
import { KERNELS, ops, PROPERTIES, withWorkspace } from './levels.js';

export interface RowOp {
  name: string;
  /** Floats of input per row. */
  width: number;
  /** That every number of rows up to 64 is tried in the emulator, too, as the kernels depend on it. */
  everySize?: true;
  /** The bytes of everything row `target` results in. */
  run(level: string, threads: number, x: Float32Array, target: number): Uint8Array;
}

export interface Launch {
  rows: number;
  /** The row that is looked at. */
  at: number;
  kind: (typeof NEIGHBOURS)[number];
  threads: number;
  workspace: number | null;
}

/**
 * The launches of so many rows that a row is looked at in. Emulated kernels are slow: there, every number of rows sees
 * every place and every workspace, while neighbours and orders of threads take turns.
 */
export function launches(rows: number): Launch[] {
  const places = [0, Math.floor(rows / 2), rows - 1];
  if (!KERNELS) {
    return [...new Set(places)].flatMap((place) =>
      NEIGHBOURS.map((kind) => ({ rows, at: place, kind, threads: 1 + (rows % 2), workspace: null })),
    );
  }
  const { orders, workspaces } = PROPERTIES;
  return places.map((place, i) => ({
    rows,
    at: place,
    kind: at(NEIGHBOURS, (rows + i) % NEIGHBOURS.length),
    threads: at(orders, (3 * rows + i) % orders.length),
    workspace: at(workspaces, (rows + i) % workspaces.length),
  }));
}

export const describeLaunch = ({ rows, at: place, kind, threads, workspace }: Launch): string =>
  `row ${place} of ${rows} beside ${kind.name}` +
  (KERNELS ? `, order ${threads}, workspace ${workspace ?? 'as given'}` : '');

const EVERY_SIZE = [...range(64, 1), ...PROPERTIES.largeLaunches];
const SOME_SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, ...PROPERTIES.largeLaunches];

/** Launches of the given numbers of rows whose result for one row differs from that of the row alone. */
export function rowFaults(
  op: RowOp,
  level: string,
  sizes = KERNELS && !op.everySize ? SOME_SIZES : EVERY_SIZE,
): string[] {
  const random = new Random(op.width);
  const row = random.floats(op.width);
  const alone = op.run(level, 1, row, 0);
  return sizes.flatMap(launches).flatMap((launch) => {
    const { rows, at: where, kind, threads, workspace } = launch;
    const x = surround(row, where, rows, kind.fill(random, rows * op.width));
    const together = withWorkspace(workspace, () => op.run(level, threads, x, where));
    return differingBytes(alone, together) > 0 ? [describeLaunch(launch)] : [];
  });
}

const weights = new Random(99);

export function matmulOp(dtype: MatrixArg['dtype'], n: number, k: number): RowOp {
  const w = dtype === 'q8_0' || dtype === 'q4_0' ? quantised(weights, dtype, n, k) : randomMatrix(weights, dtype, n, k);
  const bias = weights.floats(n);
  return {
    name: `matmul ${dtype} ${n} x ${k}`,
    width: k + n,
    everySize: true,
    run: (level, threads, x, target) => {
      const rows = x.length / (k + n);
      const args = { x: columns(x, k + n, 0, k), residual: columns(x, k + n, k, k + n), w, bias, rows };
      return joinBytes(rowOf(ops.matmul(level, threads, args), n, target));
    },
  };
}

function normOp(groups: number, dim: number): RowOp {
  const weight = weights.floats(dim);
  return {
    name: `norm ${groups} x ${dim}`,
    width: groups * dim,
    run: (level, threads, x, target) => {
      const rows = x.length / (groups * dim);
      return joinBytes(
        rowOf(ops.norm(level, threads, { x, weight, rows, groups, dim, eps: 1e-6 }), groups * dim, target),
      );
    },
  };
}

function actOp(dim: number): RowOp {
  return {
    name: `act ${dim}`,
    width: 2 * dim,
    run: (level, threads, x, target) =>
      joinBytes(rowOf(ops.act(level, threads, { gateUp: x, rows: x.length / (2 * dim), dim }), dim, target)),
  };
}

/** The neighbours are other entries of the table. */
function embedOp(hidden: number): RowOp {
  return {
    name: `embed ${hidden}`,
    width: hidden,
    run: (level, threads, x, target) => {
      const rows = x.length / hidden;
      const table = { source: encode(FINEST, x), dtype: FINEST, rows, cols: hidden };
      return joinBytes(
        rowOf(ops.embed(level, threads, { table, token: Int32Array.from(range(rows)) }), hidden, target),
      );
    },
  };
}

/** Row 11 of the sequence each time; neighbours sit at positions and slots of their own. */
function ropeOp(heads: number, kvHeads: number, headDim: number): RowOp {
  const width = (heads + 2 * kvHeads) * headDim;
  const cosSin = ops.ropeTable('oracle', 1, { scaling: 'none', theta: 10000, headDim, positions: 144 });
  return {
    name: `rope ${heads}/${kvHeads} x ${headDim}`,
    width,
    run: (level, threads, x, target) => {
      const rows = x.length / width;
      const slot = Int32Array.from(range(rows), (r) => (r === target ? 11 : r < 11 ? r : r + 1));
      const batch = {
        position: slot,
        slot,
        sequence: new Int32Array(rows),
        context: slot.map((s) => s + 1),
        tailBegin: new Int32Array(rows + 1),
        tailSlots: new Int32Array(),
        blockTables: Int32Array.from([3, 0, 4, 1, 2, 8, 7, 5, 6]),
        tableStride: 9,
      };
      const padded = Math.ceil(headDim / 16) * 16;
      const kv = {
        k: new Float32Array(9 * kvHeads * headDim * 16),
        v: new Float32Array(9 * kvHeads * 16 * padded),
        kvHeads,
        headDim,
      };
      const y = ops.rope(level, threads, { qkv: x.slice(), cosSin, kv, batch, heads });
      const k = range(kvHeads * headDim).map((n) => at(y.k, (3 * kvHeads * headDim + n) * 16 + 11));
      const v = range(kvHeads).flatMap((h) => {
        const from = ((3 * kvHeads + h) * 16 + 11) * padded;
        return Array.from(y.v.subarray(from, from + padded));
      });
      return joinBytes(rowOf(y.qkv, width, target).subarray(0, heads * headDim), Float32Array.from([...k, ...v]));
    },
  };
}

/** Neighbours draw with other settings, too. */
function sampleOp(vocab: number, temperature: number): RowOp {
  return {
    name: `sample ${vocab} at temperature ${temperature}`,
    width: vocab,
    run: (level, threads, x, target) => {
      const rows = x.length / vocab;
      const own = <T extends number | bigint>(mine: T, others: (r: number) => T): T[] =>
        range(rows).map((r) => (r === target ? mine : others(r)));
      const token = ops.sample(level, threads, {
        logits: x,
        vocab,
        temperature: Float32Array.from(own(temperature, (r) => (r % 3) / 2)),
        topK: Int32Array.from(own(20, (r) => r % 4)),
        topP: Float32Array.from(own(0.9, (r) => (r % 2 ? 1 : 0.3))),
        minP: Float32Array.from(own(0.01, () => 0)),
        seed: BigUint64Array.from(own(77n, (r) => BigInt(r))),
        position: Int32Array.from(own(123, (r) => r)),
      });
      return joinBytes(rowOf(token, 1, target));
    },
  };
}

function logprobOp(vocab: number, topK: number): RowOp {
  return {
    name: `logprob ${vocab}`,
    width: vocab,
    run: (level, threads, x, target) => {
      const rows = x.length / vocab;
      const token = Int32Array.from(range(rows), (r) => (r === target ? 5 : r % vocab));
      const y = ops.logprob(level, threads, { logits: x, vocab, row: Int32Array.from(range(rows)), token, topK });
      return joinBytes(rowOf(y.logprob, 1, target), rowOf(y.topToken, topK, target), rowOf(y.topLogprob, topK, target));
    },
  };
}

function cellOp(cell: 'sum' | 'elman' | 'gru', hidden: number): RowOp {
  const gates = cell === 'gru' ? 3 * hidden : hidden;
  const parts =
    cell === 'sum'
      ? {}
      : {
          w: randomMatrix(weights, 'bf16', gates, hidden),
          u: randomMatrix(weights, FINEST, gates, hidden),
          wBias: weights.floats(gates),
          uBias: weights.floats(gates),
        };
  return {
    name: `cell ${cell} ${hidden}`,
    width: 2 * hidden,
    run: (level, threads, x, target) => {
      const rows = x.length / (2 * hidden);
      const e = columns(x, 2 * hidden, 0, hidden);
      const s = columns(x, 2 * hidden, hidden, 2 * hidden);
      return joinBytes(rowOf(ops.cell(level, threads, { cell, e, s, ...parts, rows, hidden }), hidden, target));
    },
  };
}

/** The target's token and state beside rows of other tokens; the table of half of the tokens is poison. */
function foldedCellOp(cell: 'elman' | 'gru', hidden: number): RowOp {
  const gates = cell === 'gru' ? 3 * hidden : hidden;
  const values = weights.floats(20 * gates);
  values.fill(NaN, 10 * gates);
  const table = { source: encode('bf16', values), dtype: 'bf16' as const, rows: 20, cols: gates };
  const parts = { table, u: randomMatrix(weights, 'bf16', gates, hidden), uBias: weights.floats(gates) };
  return {
    name: `folded cell ${cell} ${hidden}`,
    width: hidden,
    run: (level, threads, x, target) => {
      const rows = x.length / hidden;
      const token = Int32Array.from(range(rows), (r) => (r === target ? 7 : 10 + (r % 10)));
      return joinBytes(rowOf(ops.cell(level, threads, { cell, token, s: x, ...parts, rows, hidden }), hidden, target));
    },
  };
}

function mixOp(hidden: number, exit: number): RowOp {
  const projection = randomMatrix(weights, 'f16', exit, 2 * hidden);
  const [h, bias] = [weights.floats(hidden), weights.floats(exit)];
  return {
    name: 'mix',
    width: hidden,
    run: (level, threads, x, target) =>
      joinBytes(
        rowOf(
          ops.mix(level, threads, { h, s: x, projection, bias, rows: x.length / hidden, hidden, exit }),
          exit,
          target,
        ),
      ),
  };
}

function residualOp(exit: number): RowOp {
  const [a, bias] = [randomMatrix(weights, 'bf16', exit, exit), weights.floats(exit)];
  return {
    name: 'residual',
    width: exit,
    run: (level, threads, x, target) =>
      joinBytes(rowOf(ops.residual(level, threads, { z: x, a, bias, rows: x.length / exit, exit }), exit, target)),
  };
}

function headTopOp(exit: number, vocab: number, top: number): RowOp {
  const head = randomMatrix(weights, 'bf16', vocab, exit);
  return {
    name: 'headTop',
    width: exit,
    run: (level, threads, x, target) => {
      const y = ops.headTop(level, threads, { z: x, head, rows: x.length / exit, top });
      return joinBytes(rowOf(y.token, top, target), rowOf(y.logit, top, target), rowOf(y.logSumExp, 1, target));
    },
  };
}

/** The first number of a row says which mask it has. */
function maskedHeadTopOp(exit: number, vocab: number, top: number): RowOp {
  const head = randomMatrix(weights, 'bf16', vocab, exit);
  const maskWords = Math.ceil(vocab / 32);
  const mask = new Int32Array(3 * maskWords).map(() => weights.uint32());
  return {
    name: 'headTop, masked',
    width: exit,
    run: (level, threads, x, target) => {
      const rows = x.length / exit;
      const maskIndex = Int32Array.from(range(rows), (row) => {
        const first = at(x, row * exit);
        return Number.isFinite(first) ? Math.abs(Math.floor(first * 64)) % 3 : row % 3;
      });
      const y = ops.headTop(level, threads, { z: x, head, rows, top, mask, maskIndex, maskWords });
      return joinBytes(rowOf(y.token, top, target), rowOf(y.logit, top, target), rowOf(y.logSumExp, 1, target));
    },
  };
}

/** Ops for which row invariance is a promise: everything a target's token depends on. */
export const targetOps: RowOp[] = [
  ...DTYPES.map((dtype) => matmulOp(dtype, 67, 43)),
  matmulOp('bf16', 16, 200),
  normOp(1, 70),
  normOp(3, 24),
  actOp(45),
  embedOp(20),
  ropeOp(3, 2, 24),
  sampleOp(50, 0),
  sampleOp(50, 0.8),
  logprobOp(41, 5),
];

/** Shapes of which a launch is large enough to be shared between threads. */
export const sharedOps: RowOp[] = [
  matmulOp('bf16', 300, 120),
  matmulOp(FINEST, 200, 90),
  normOp(8, 600),
  actOp(1500),
  ropeOp(16, 4, 64),
  sampleOp(1000, 0.8),
  logprobOp(1000, 5),
];
export const SHARED_SIZES = [2, 7, 33, 63];

/** Ops of the drafter, which cannot change the output; on the CPU it holds for them all the same. */
export const drafterOps: RowOp[] = [
  cellOp('sum', 24),
  cellOp('elman', 24),
  cellOp('gru', 24),
  cellOp('gru', 32),
  foldedCellOp('elman', 24),
  foldedCellOp('gru', 24),
  foldedCellOp('gru', 32),
  mixOp(20, 24),
  residualOp(40),
  headTopOp(24, 70, 8),
  maskedHeadTopOp(24, 200, 8),
];
