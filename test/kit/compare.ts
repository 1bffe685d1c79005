/** Comparisons that say where two results differ. */
import { expect } from 'vitest';

type Numbers = ArrayLike<number>;

const bytesOf = (array: ArrayBufferView): Buffer => Buffer.from(array.buffer, array.byteOffset, array.byteLength);

/** Bytes that differ, a difference in length counted. NaNs of different bits and -0 and +0 are different. */
export function differingBytes(a: ArrayBufferView, b: ArrayBufferView): number {
  const [x, y] = [bytesOf(a), bytesOf(b)];
  if (x.equals(y)) return 0;
  let count = Math.abs(x.length - y.length);
  for (let i = 0; i < Math.min(x.length, y.length); i++) if (x[i] !== y[i]) count++;
  return count;
}

export function expectSameBytes(actual: ArrayBufferView, expected: ArrayBufferView, what = ''): void {
  expect(differingBytes(actual, expected), `differing bytes ${what}`).toBe(0);
}

/** The bits of a NaN need not survive a cache of 16-bit numbers; that it is one must. */
export function expectSameCache<Cache extends { k: Float32Array; v: Float32Array }>(
  actual: Cache,
  expected: Cache,
  what = '',
): void {
  for (const key of ['k', 'v'] as const) {
    const [a, b] = [actual, expected].map((kv) => kv[key].map((x) => (Number.isNaN(x) ? NaN : x)));
    expectSameBytes(a ?? new Float32Array(), b ?? new Float32Array(1), `in ${key} ${what}`);
  }
}

/** Values with a proven bound on the error of each. */
export interface Bounded {
  value: Float64Array;
  bound: Float64Array;
}

/** The worst |actual - value| / bound; Infinity where one of the two is NaN or the lengths differ. */
export function worstRatio(actual: Numbers, expected: Bounded): { ratio: number; at: number } {
  if (actual.length !== expected.value.length) return { ratio: Infinity, at: -1 };
  let worst = { ratio: 0, at: -1 };
  for (let i = 0; i < actual.length; i++) {
    const [a, e, bound] = [actual[i] ?? NaN, expected.value[i] ?? NaN, expected.bound[i] ?? NaN];
    const error = Math.abs(a - e);
    const ratio = a === e ? 0 : Number.isNaN(error / bound) ? Infinity : error / bound;
    if (ratio > worst.ratio) worst = { ratio, at: i };
  }
  return worst;
}

export function expectWithin(actual: Numbers, expected: Bounded, what = ''): void {
  const { ratio, at } = worstRatio(actual, expected);
  const detail = `[${at}] = ${actual[at] ?? NaN}, expected ${expected.value[at] ?? NaN} +- ${expected.bound[at] ?? NaN}`;
  expect(ratio, `error over its bound ${what} ${detail}`).toBeLessThanOrEqual(1);
}

export function expectSameNumbers(actual: Numbers, expected: Numbers, what = ''): void {
  expect(Array.from(actual), what).toEqual(Array.from(expected));
}
