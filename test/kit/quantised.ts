/** Quantised matrices for tests, and what they stand for. */
import { quantiseRow, rowBytes } from '../../lib/quantize/groups.js';
import { at, range } from './arrays.js';
import { fromF16 } from './bf16.js';
import type { MatrixArg, QuantisedDType } from './ops.js';
import type { Random } from './random.js';

export const QUANTISED = ['q8_0', 'q4_0'] as const;

/** Row-major weights as groups. */
export function quantise(form: QuantisedDType, weights: Float32Array, cols: number): MatrixArg {
  const rows = weights.length / cols;
  const bytes = new Uint8Array(rows * rowBytes(form, cols));
  for (const row of range(rows)) {
    quantiseRow(weights.subarray(row * cols, (row + 1) * cols), form, bytes, row * rowBytes(form, cols));
  }
  return { source: new Uint16Array(bytes.buffer), dtype: form, rows, cols };
}

export function quantised(random: Random, form: QuantisedDType, rows: number, cols: number): MatrixArg {
  return quantise(form, random.floats(rows * cols, 1 / Math.sqrt(cols)), cols);
}

export interface Group {
  scale: number;
  /** Integers, 32 of them. */
  weights: number[];
}

/** The groups of row n, read byte by byte as the format says. */
export function groupsOf({ source, dtype, cols }: MatrixArg, n: number): Group[] {
  const bytes = new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  const size = dtype === 'q8_0' ? 34 : 18;
  const count = Math.ceil(cols / 32);
  return range(count).map((g) => {
    const group = bytes.subarray((n * count + g) * size, (n * count + g + 1) * size);
    const weights = range(32).map((i) => {
      if (dtype === 'q8_0') return (at(group, 2 + i) << 24) >> 24;
      return (i < 16 ? at(group, 2 + i) & 15 : at(group, 2 + i - 16) >> 4) - 8;
    });
    return { scale: fromF16(at(group, 0) | (at(group, 1) << 8)), weights };
  });
}
