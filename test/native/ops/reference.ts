/**
 * The ops as plain float64 loops, written from the contracts and independently of the native code, each with
 * a bound on the error that fp32 may make. u = 2^-24 is the unit roundoff; a chain of n roundings is within
 * gamma(n) = n u / (1 - n u) of the exact sum of magnitudes. exp is allowed EXP relative error (ops/math_simd.h; 2 units
 * in the last place in CUDA). How often sums of products round depends on the backend: see PROPERTIES.
 */
import { at } from '../../kit/arrays.js';
import { decode } from '../../kit/bf16.js';
import type { Bounded } from '../../kit/compare.js';
import type { CellArgs, MatmulArgs, MatrixArg, MixArgs, NormArgs, ResidualArgs, RopeTableArgs } from '../../kit/ops.js';
import { PROPERTIES, rounded } from './levels.js';

export const U = 2 ** -24;
export const EXP = 3e-7;
export const gamma = (n: number): number => (n * U) / (1 - n * U);
/** As gamma, of a sum of n products and `more` roundings behind it. */
export function chain(n: number, more: number): number {
  const roundings = PROPERTIES.roundings(n) * PROPERTIES.unit + more * U;
  return roundings / (1 - roundings);
}
/** Below this, results may be flushed or clamped. */
const TINY = 1e-35;

export const bounded = (count: number): Bounded => ({ value: new Float64Array(count), bound: new Float64Array(count) });
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
export const silu = (x: number): number => x / (1 + Math.exp(-x));

/** sum_k w[n, k] x[k] with the sum of magnitudes. */
function dot(w: Float32Array, cols: number, n: number, x: Float32Array, offset: number): [number, number] {
  let [sum, magnitude] = [0, 0];
  for (let k = 0; k < cols; k++) {
    const term = at(w, n * cols + k) * at(x, offset + k);
    sum += term;
    magnitude += Math.abs(term);
  }
  return [sum, magnitude];
}

/** A sum of K products (one more rounding where a product is not fused), then bias, then residual. */
export function matmul(args: MatmulArgs): Bounded {
  const { rows: n, cols: k } = args.w;
  const [xStride, yStride] = [args.xStride ?? k, args.yStride ?? n];
  const w = decode(args.w.dtype, args.w.source);
  const x = rounded(args.w.dtype, args.x);
  const out = bounded(args.rows * n);
  for (let m = 0; m < args.rows; m++) {
    for (let i = 0; i < n; i++) {
      const [sum, magnitude] = dot(w, k, i, x, m * xStride);
      const bias = args.bias === undefined ? 0 : at(args.bias, i);
      const residual = args.residual === undefined ? 0 : at(args.residual, m * yStride + i);
      out.value[m * n + i] = sum + bias + residual;
      out.bound[m * n + i] = chain(k, 3) * (magnitude + Math.abs(bias) + Math.abs(residual)) + TINY;
    }
  }
  return out;
}

/**
 * The sum of squares, division, eps: relative error of the mean; half of it through the square root; then root,
 * reciprocal and two products.
 */
export function norm(args: NormArgs): Bounded {
  const { rows, groups, dim } = args;
  const [xStride, yStride] = [args.xStride ?? groups * dim, args.yStride ?? groups * dim];
  const out = bounded(rows * yStride);
  const relative = gamma((PROPERTIES.normRoundings(dim) + 2) / 2 + 4);
  for (let r = 0; r < rows; r++) {
    const source = args.gather === undefined ? r : at(args.gather, r);
    for (let g = 0; g < groups; g++) {
      const x = args.x.subarray(source * xStride + g * dim, source * xStride + (g + 1) * dim);
      const scale = 1 / Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / dim + Math.fround(args.eps));
      for (let i = 0; i < dim; i++) {
        const y = at(x, i) * scale * at(args.weight, i);
        out.value[r * yStride + g * dim + i] = y;
        out.bound[r * yStride + g * dim + i] = relative * Math.abs(y) + TINY;
      }
    }
  }
  return out;
}

export function act(gateUp: Float32Array, rows: number, dim: number): Bounded {
  const out = bounded(rows * dim);
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < dim; i++) {
      const up = at(gateUp, r * 2 * dim + dim + i);
      const y = silu(at(gateUp, r * 2 * dim + i)) * up;
      out.value[r * dim + i] = y;
      out.bound[r * dim + i] = (EXP + gamma(4)) * Math.abs(y) + TINY * (1 + Math.abs(up));
    }
  }
  return out;
}

/** W x + b with the bound of its chain. */
function affine(w: MatrixArg | undefined, bias: Float32Array | undefined, x: Float32Array): Bounded {
  if (w === undefined) throw new Error('no matrix');
  return matmul({ x, w, rows: x.length / w.cols, ...(bias === undefined ? {} : { bias }) });
}

/** Rows of a table, as they are. */
export function lookUp(table: MatrixArg, token: Int32Array): Float32Array {
  const values = decode(table.dtype, table.source);
  const rows = Array.from(token, (id) => values.subarray(id * table.cols, (id + 1) * table.cols));
  return Float32Array.from(rows.flatMap((row) => Array.from(row)));
}

function cellInput(args: CellArgs): Float32Array {
  if (args.e !== undefined) return args.e;
  if (args.table === undefined || args.token === undefined) throw new Error('no input');
  return lookUp(args.table, args.token);
}

/** W e + bias, from a folded table without error. */
function projectedInput(args: CellArgs): Bounded {
  const e = cellInput(args);
  if (args.w !== undefined) return affine(args.w, args.wBias, e);
  return { value: Float64Array.from(e), bound: new Float64Array(e.length) };
}

/** Slopes: SiLU at most 1.1, sigma 1/4, tanh 1; each gate adds the error of its own exp. */
export function cell(args: CellArgs): Bounded {
  const { rows, hidden: h } = args;
  const out = bounded(rows * h);
  if (args.cell === 'sum') {
    const e = cellInput(args);
    out.value.forEach((_, i) => {
      out.value[i] = at(args.s, i) + at(e, i);
      out.bound[i] = U * Math.abs(at(out.value, i));
    });
    return out;
  }
  const [input, state] = [projectedInput(args), affine(args.u, args.uBias, args.s)];
  const gates = args.cell === 'gru' ? 3 : 1;
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < h; i++) {
      const part = (gate: number): { a: number; b: number; error: number } => {
        const n = r * gates * h + gate * h + i;
        const [a, b] = [at(input.value, n), at(state.value, n)];
        // The oracle and the fast versions add the two chains and the biases in different order.
        const order = gamma(4) * (Math.abs(a) + Math.abs(b));
        const biases = gamma(4) * Math.abs(args.uBias === undefined ? 0 : at(args.uBias, gate * h + i));
        return { a, b, error: at(input.bound, n) + at(state.bound, n) + order + biases };
      };
      const first = part(0);
      if (args.cell === 'elman') {
        const y = silu(first.a + first.b);
        out.value[r * h + i] = y;
        out.bound[r * h + i] = 1.1 * first.error + (EXP + gamma(3)) * Math.abs(y) + TINY;
        continue;
      }
      const [second, third] = [part(1), part(2)];
      const gate = sigmoid(first.a + first.b);
      const z = sigmoid(second.a + second.b);
      const c = Math.tanh(third.a + gate * third.b);
      const s = at(args.s, r * h + i);
      const gateError = first.error / 4 + EXP + 2 * U;
      const zError = second.error / 4 + EXP + 2 * U;
      const cError = third.error + gateError * Math.abs(third.b) + 2 * EXP + 4 * U;
      out.value[r * h + i] = (1 - z) * c + z * s;
      out.bound[r * h + i] = cError + zError * (Math.abs(s) + Math.abs(c)) + gamma(4) * (Math.abs(s) + Math.abs(c));
    }
  }
  return out;
}

/** [h; s] of every row. */
export function joined(args: MixArgs): Float32Array {
  const out = new Float32Array(args.rows * 2 * args.hidden);
  for (let r = 0; r < args.rows; r++) {
    out.set(args.h, r * 2 * args.hidden);
    out.set(args.s.subarray(r * args.hidden, (r + 1) * args.hidden), (r * 2 + 1) * args.hidden);
  }
  return out;
}

export function mix(args: MixArgs): Bounded {
  return affine(args.projection, args.bias, joined(args));
}

export function residual(args: ResidualArgs): Bounded {
  const inner = affine(args.a, args.bias, args.z);
  const out = bounded(args.z.length);
  out.value.forEach((_, i) => {
    const y = silu(at(inner.value, i));
    out.value[i] = at(args.z, i) + y;
    out.bound[i] = 1.1 * at(inner.bound, i) + (EXP + gamma(3)) * Math.abs(y) + U * Math.abs(at(out.value, i)) + TINY;
  });
  return out;
}

/**
 * log-sum-exp of logits with the bound of an fp32 sum of fp32 exponentials in lanes. The arguments of the exponentials
 * whose product a term is add up to its distance from the largest logit.
 */
export function logSumExp(logits: Float32Array): { value: number; bound: number } {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = logits.reduce((total, x) => total + Math.exp(x - largest), 0);
  const value = largest + Math.log(sum);
  // Relative error of the sum: that of each exp, the rounding of its argument, and the additions.
  const spread = logits.reduce((most, x) => Math.max(most, x > largest - 20 ? largest - x : 0), 0);
  const { exponentials } = PROPERTIES;
  const relative = exponentials * (EXP + U) + U * spread + gamma(Math.ceil(logits.length / 16) + 20);
  return { value, bound: relative + gamma(3) * (Math.abs(value) + Math.abs(Math.log(sum))) + 1e-7 * U };
}

/** The `count` best by value, ties by lowest index; NaN never, -1 where nothing is left. */
export function topIndices(values: ArrayLike<number>, count: number): number[] {
  const order = Array.from({ length: values.length }, (_, i) => i).filter((i) => !Number.isNaN(at(values, i)));
  order.sort((a, b) => {
    const [x, y] = [at(values, a), at(values, b)];
    return x === y ? a - b : y - x;
  });
  return Array.from({ length: count }, (_, i) => order[i] ?? -1);
}

function yarnScale(factor: number, mscale: number): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}

/** Inverse frequencies as Hugging Face transformers defines them (modeling_rope_utils), in float64. */
function frequencies(args: RopeTableArgs): { frequency: number[]; scale: number } {
  const { theta, headDim: dim, factor = 1, originalMaxPositions: original = 0 } = args;
  const base = Array.from({ length: dim / 2 }, (_, i) => 1 / theta ** ((2 * i) / dim));
  if (args.scaling === 'none') return { frequency: base, scale: 1 };
  if (args.scaling === 'linear') return { frequency: base.map((f) => f / factor), scale: 1 };
  if (args.scaling === 'llama3') {
    const { lowFreqFactor: low = 1, highFreqFactor: high = 4 } = args;
    const scaled = base.map((f) => {
      const wavelength = (2 * Math.PI) / f;
      const smooth = Math.min(Math.max((original / wavelength - low) / (high - low), 0), 1);
      return ((1 - smooth) * f) / factor + smooth * f;
    });
    return { frequency: scaled, scale: 1 };
  }
  const { betaFast = 32, betaSlow = 1, truncate = true } = args;
  const correction = (turns: number): number =>
    (dim * Math.log(original / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  let [low, high] = [correction(betaFast), correction(betaSlow)];
  if (truncate) [low, high] = [Math.floor(low), Math.ceil(high)];
  [low, high] = [Math.max(low, 0), Math.min(high, dim - 1)];
  const width = low === high ? 0.001 : high - low;
  const frequency = base.map((f, i) => {
    const interpolate = Math.min(Math.max((i - low) / width, 0), 1);
    return (f / factor) * interpolate + f * (1 - interpolate);
  });
  const { mscale, mscaleAllDim, attentionFactor } = args;
  const derived =
    mscale && mscaleAllDim ? yarnScale(factor, mscale) / yarnScale(factor, mscaleAllDim) : yarnScale(factor, 1);
  return { frequency, scale: attentionFactor ?? derived };
}

/** Frequency and angle are rounded to fp32, as the contract says; then one rounding of each entry. */
export function ropeTable(args: RopeTableArgs): Bounded {
  const half = args.headDim / 2;
  const { frequency, scale } = frequencies(args);
  const out = bounded(args.positions * args.headDim);
  for (let p = 0; p < args.positions; p++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(p * Math.fround(at(frequency, i)));
      [Math.cos(angle), Math.sin(angle)].forEach((x, j) => {
        out.value[(p * half + i) * 2 + j] = x * scale;
        out.bound[(p * half + i) * 2 + j] = 1.01 * U * Math.abs(x * scale) + 1e-15;
      });
    }
  }
  return out;
}
