/** Checked element access and a few shapes of typed arrays. */

/** The element at i, which must exist. */
export function at<T>(array: ArrayLike<T>, i: number): T {
  if (!(i >= 0 && i < array.length)) throw new RangeError(`index ${i} of ${array.length}`);
  return array[i] as T;
}

/** Columns [from, to) of a row-major matrix whose rows have `width` elements. */
export function columns(x: Float32Array, width: number, from: number, to: number): Float32Array {
  const rows = x.length / width;
  const out = new Float32Array(rows * (to - from));
  for (let r = 0; r < rows; r++) out.set(x.subarray(r * width + from, r * width + to), r * (to - from));
  return out;
}

export function rowOf<T extends Float32Array | Int32Array>(x: T, width: number, row: number): T {
  return x.slice(row * width, (row + 1) * width) as T;
}

/** The bytes of several arrays, one after the other. */
export function joinBytes(...parts: ArrayBufferView[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts.map((p) => Buffer.from(p.buffer, p.byteOffset, p.byteLength))));
}

export const ints = (...values: number[]): Int32Array => Int32Array.from(values);
export const range = (count: number, from = 0): number[] => Array.from({ length: count }, (_, i) => from + i);
