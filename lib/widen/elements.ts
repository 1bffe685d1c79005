/** Stored floats halved, on their bits. */
import { invalid } from '../errors.js';

/** Halves 16-bit floats with so many bits of fraction. Only what becomes subnormal can round, to nearest and ties to even. */
function halve16(bits: Uint16Array, halvings: number, fraction: number): void {
  const largest = (1 << (15 - fraction)) - 1;
  const step = halvings << fraction;
  for (let i = 0; i < bits.length; i++) {
    const value = bits[i] ?? 0;
    const exponent = (value & 0x7fff) >> fraction;
    if (exponent === largest) continue; // infinite or no number
    if (exponent > halvings) {
      bits[i] = value - step;
      continue;
    }
    const low = value & ((1 << fraction) - 1);
    const units = exponent === 0 ? low : (low + (1 << fraction)) * 2 ** (exponent - 1);
    const exact = units / 2 ** halvings;
    const below = Math.floor(exact);
    const up = exact - below > 0.5 || (exact - below === 0.5 && below % 2 === 1);
    bits[i] = (value & 0x8000) | (below + (up ? 1 : 0));
  }
}

/** A copy of the stored elements, each divided by 2^halvings. */
export function halved(bytes: Uint8Array, dtype: string, halvings: number): Uint8Array {
  const copy = bytes.slice(); // begins a buffer of its own, so that it is aligned
  if (halvings === 0) return copy;
  if (dtype === 'bf16') halve16(new Uint16Array(copy.buffer), halvings, 7);
  else if (dtype === 'f16') halve16(new Uint16Array(copy.buffer), halvings, 10);
  else if (dtype === 'f32') {
    const floats = new Float32Array(copy.buffer);
    for (let i = 0; i < floats.length; i++) floats[i] = (floats[i] ?? 0) / 2 ** halvings;
  } else throw invalid(`cannot widen a tensor of dtype ${dtype}`);
  return copy;
}
