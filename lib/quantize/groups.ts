/** Weights in groups of 32 with a common scale, in the forms q8_0 and q4_0: the same bytes as loading with that dtype makes. */

/** Weights of a group. */
export const GROUP = 32;

export type QuantisedForm = 'q8_0' | 'q4_0';

/** Bytes of a group: a scale in f16, and the weights. */
export const groupBytes = (form: QuantisedForm): number => (form === 'q8_0' ? 34 : 18);

/** Bytes of a row; its last group is filled up with zeros. */
export const rowBytes = (form: QuantisedForm, columns: number): number => Math.ceil(columns / GROUP) * groupBytes(form);

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The bits of a finite float as f16, to nearest and ties to even; what is too large becomes infinite. */
export function toHalf(value: number): number {
  float[0] = value;
  const b = bits[0] ?? 0;
  const sign = (b >>> 16) & 0x8000;
  const magnitude = b & 0x7fffffff;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    float[0] = Math.abs(Math.fround(value)) + 0.5; // as f16, multiples of 2^-24, which are what this rounds to
    return sign | ((bits[0] ?? 0) - 0x3f000000);
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

/** 0 where the reciprocal in f32 is infinite: then the scale is 0 in f16. */
function reciprocal(scale: number): number {
  const inverse = Math.fround(1 / scale);
  return Number.isFinite(inverse) ? inverse : 0;
}

/** To nearest, halves away from zero. */
const roundAway = (value: number): number => Math.sign(value) * Math.floor(Math.abs(value) + 0.5);

/** The place of the weight of largest magnitude, the first of several, or of one that is not finite. */
function largestOf(weights: Float32Array): number {
  let most = 0;
  for (let i = 0; i < weights.length; i++) {
    const w = weights[i] ?? 0;
    if (!Number.isFinite(w)) return i;
    if (Math.abs(w) > Math.abs(weights[most] ?? 0)) most = i;
  }
  return most;
}

/**
 * Writes the groups of a row to `out` at `at`. Returns the column of the first weight that is not finite, or too large for a scale
 * in f16, or -1.
 */
export function quantiseRow(row: Float32Array, form: QuantisedForm, out: Uint8Array, at: number): number {
  const group = new Float32Array(GROUP);
  for (let first = 0; first < row.length; first += GROUP, at += groupBytes(form)) {
    group.fill(0);
    group.set(row.subarray(first, first + GROUP));
    const place = largestOf(group);
    const largest = group[place] ?? 0;
    const scale = Math.fround(form === 'q8_0' ? Math.abs(largest) / 127 : largest / -8);
    if (!(Math.abs(scale) < 65520)) return first + place;
    const half = toHalf(scale);
    out[at] = half & 255;
    out[at + 1] = half >> 8;
    const inverse = reciprocal(scale);
    for (let i = 0; i < GROUP; i++) {
      const scaled = Math.fround((group[i] ?? 0) * inverse);
      if (form === 'q8_0') {
        out[at + 2 + i] = roundAway(scaled);
        continue;
      }
      const four = Math.min(15, Math.trunc(Math.fround(scaled + 8.5)));
      const byte = at + 2 + (i % 16);
      out[byte] = i < 16 ? four : (out[byte] ?? 0) | (four << 4);
    }
  }
  return -1;
}
