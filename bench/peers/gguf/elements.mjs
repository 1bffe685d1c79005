// Elements of tensors: from what a checkpoint stores to fp32, and from that to what a GGUF holds. The block formats follow
// the reference rules, every step rounded to fp32 as it is there.

/** @typedef {import('./file.mjs').Dtype} Dtype */

/** Elements that share one scale. */
const BLOCK = 32;

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** To nearest, ties to even; too large becomes infinite. @param {number} value */
export function toF16(value) {
  float[0] = value;
  const all = bits[0] ?? 0;
  const sign = (all >>> 16) & 0x8000;
  const magnitude = all & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520 and above
  if (magnitude < 0x38800000) {
    // Subnormal: a multiple of 2^-24. Rounding up to 2^-14 gives the bits of that.
    const units = Math.abs(float[0]) * 2 ** 24;
    const low = Math.floor(units);
    const up = units - low > 0.5 || (units - low === 0.5 && low % 2 === 1);
    return sign | (low + (up ? 1 : 0));
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

/** @param {number} half */
export function fromF16(half) {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** To nearest, ties to even. @param {number} value */
export function toBf16(value) {
  float[0] = value;
  const all = bits[0] ?? 0;
  if ((all & 0x7fffffff) > 0x7f800000) return (all >>> 16) | 0x40;
  return ((all + 0x7fff + ((all >>> 16) & 1)) >>> 16) & 0xffff;
}

/**
 * Stored elements as fp32, which holds all of them exactly.
 * @param {string} dtype as safetensors names it, in lower case @param {Uint8Array} bytes
 */
export function floatsOf(dtype, bytes) {
  const own = bytes.slice().buffer; // begins a buffer, so that it is aligned
  if (dtype === 'f32') return new Float32Array(own);
  if (dtype === 'f16') return Float32Array.from(new Uint16Array(own), fromF16);
  if (dtype !== 'bf16') throw new Error(`cannot read elements of dtype ${dtype}`);
  const halves = new Uint16Array(own);
  const wide = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) wide[i] = (halves[i] ?? 0) << 16;
  return new Float32Array(wide.buffer);
}

/**
 * What a GGUF stores for these elements, which are whole rows.
 * @param {Dtype} dtype @param {Float32Array} values
 * @returns {Uint8Array}
 */
export function encode(dtype, values) {
  if (dtype === 'f32') return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  if (dtype === 'q8_0') return quantize(values, 34, quantizeQ8);
  if (dtype === 'q4_0') return quantize(values, 18, quantizeQ4);
  const convert = dtype === 'f16' ? toF16 : toBf16;
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) halves[i] = convert(values[i] ?? 0);
  return new Uint8Array(halves.buffer);
}

/**
 * @param {Float32Array} values @param {number} blockBytes
 * @param {(values: Float32Array, first: number, out: Uint8Array, at: number) => void} one
 */
function quantize(values, blockBytes, one) {
  if (values.length % BLOCK !== 0) throw new Error(`${values.length} elements are no whole blocks of ${BLOCK}`);
  const out = new Uint8Array((values.length / BLOCK) * blockBytes);
  for (let block = 0; block < values.length / BLOCK; block++) one(values, block * BLOCK, out, block * blockBytes);
  return out;
}

/** @param {Uint8Array} out @param {number} at @param {number} scale */
function putScale(out, at, scale) {
  const half = toF16(scale);
  out[at] = half & 0xff;
  out[at + 1] = half >> 8;
}

const { fround } = Math;

/** The inverse of a scale, by which elements are multiplied. @param {number} scale */
const inverse = (scale) => (scale === 0 ? 0 : fround(1 / scale));

/** Half away from zero, like C's roundf. @param {number} value */
const roundAway = (value) => Math.sign(value) * Math.floor(Math.abs(value) + 0.5);

/**
 * Scale in f16, then 32 signed bytes: the scale is the largest magnitude over 127.
 * @param {Float32Array} values @param {number} first @param {Uint8Array} out @param {number} at
 */
function quantizeQ8(values, first, out, at) {
  let largest = 0;
  for (let i = 0; i < BLOCK; i++) largest = Math.max(largest, Math.abs(values[first + i] ?? 0));
  const scale = fround(largest / 127);
  const by = inverse(scale);
  putScale(out, at, scale);
  for (let i = 0; i < BLOCK; i++) out[at + 2 + i] = roundAway(fround((values[first + i] ?? 0) * by)) & 0xff;
}

/**
 * Scale in f16, then 16 bytes: element i in the low half of byte i, element 16 + i in its high half, both plus 8. The scale is the
 * element of the largest magnitude, with its sign, over -8.
 * @param {Float32Array} values @param {number} first @param {Uint8Array} out @param {number} at
 */
function quantizeQ4(values, first, out, at) {
  let largest = 0;
  for (let i = 0; i < BLOCK; i++) {
    const value = values[first + i] ?? 0;
    if (Math.abs(value) > Math.abs(largest)) largest = value;
  }
  const scale = fround(largest / -8);
  const by = inverse(scale);
  putScale(out, at, scale);
  const quant = (/** @type {number} */ i) =>
    Math.min(15, Math.trunc(fround(fround((values[first + i] ?? 0) * by) + 8.5)));
  for (let i = 0; i < BLOCK / 2; i++) out[at + 2 + i] = quant(i) | (quant(i + BLOCK / 2) << 4);
}
