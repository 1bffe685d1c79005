/** The two 16-bit element types of weights, from and to numbers; rounding is to nearest, ties to even. */
import type { DType, MatrixArg } from './ops.js';
import type { Random } from './random.js';

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

export function toBf16(value: number): number {
  float[0] = value;
  const b = bits[0] ?? 0;
  if (Number.isNaN(value)) return (b >>> 16) | 0x40;
  return ((b + 0x7fff + ((b >>> 16) & 1)) >>> 16) & 0xffff;
}

export function fromBf16(half: number): number {
  bits[0] = half << 16;
  return float[0] ?? 0;
}

export function fromF16(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const mantissa = half & 0x3ff;
  if (exponent === 0x1f) return mantissa ? NaN : sign * Infinity;
  return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1024 + mantissa) * 2 ** (exponent - 25);
}

export function toF16(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  const exponent = Math.max(Math.floor(Math.log2(magnitude)), -14);
  const steps = magnitude / 2 ** (exponent - 10); // exact: a power of two
  let rounded = Math.floor(steps);
  const rest = steps - rounded;
  if (rest > 0.5 || (rest === 0.5 && rounded % 2 === 1)) rounded++;
  // A carry out of the mantissa lands in the exponent by itself.
  return sign | (rounded + (exponent + 14) * 1024);
}

/** The bit patterns, or the values themselves for f32, that stand for `values` in `dtype`. */
export function encode(dtype: DType, values: Float32Array): Float32Array | Uint16Array {
  if (dtype === 'f32') return values;
  return Uint16Array.from(values, dtype === 'f16' ? toF16 : toBf16);
}

export function decode(dtype: MatrixArg['dtype'], source: Float32Array | Uint16Array): Float32Array {
  if (dtype === 'q8_0' || dtype === 'q4_0') throw new Error(`${dtype} has groups, see quantised.ts`);
  if (dtype === 'f32') return Float32Array.from(source);
  return Float32Array.from(source, dtype === 'f16' ? fromF16 : fromBf16);
}

export function randomMatrix(random: Random, dtype: DType, rows: number, cols: number, scale?: number): MatrixArg {
  return { source: encode(dtype, random.floats(rows * cols, scale ?? 1 / Math.sqrt(cols))), dtype, rows, cols };
}
