/** Pearson's chi-square test, and Philox again, for tests that need the uniform number behind a draw. */
import { at } from './arrays.js';

function logGamma(x: number): number {
  // Stirling's series after shifting x up; relative error far below what a quantile needs.
  let shift = 0;
  while (x < 20) shift += Math.log(x++);
  const tail = 1 / (12 * x) - 1 / (360 * x ** 3) + 1 / (1260 * x ** 5);
  return (x - 0.5) * Math.log(x) - x + Math.log(2 * Math.PI) / 2 + tail - shift;
}

/** Probability that a chi-square variable of `degrees` freedom exceeds x. */
export function chiSquareTail(x: number, degrees: number): number {
  const [a, z] = [degrees / 2, x / 2];
  if (z <= 0) return 1;
  const scale = Math.exp(a * Math.log(z) - z - logGamma(a));
  if (z < a + 1) {
    let term = scale / a;
    let below = 0;
    for (let n = 1; term > below * 1e-17; n++) {
      below += term;
      term *= z / (a + n);
    }
    return 1 - below;
  }
  // Lentz's continued fraction.
  let [b, c, d] = [z + 1 - a, 1e300, 1 / (z + 1 - a)];
  let h = d;
  for (let i = 1; i < 1000; i++) {
    const an = -i * (i - a);
    b += 2;
    d = 1 / (an * d + b);
    c = b + an / c;
    h *= d * c;
  }
  return scale * h;
}

/** p-value of counts against a law; cells of probability 0 must be empty. */
export function lawTest(counts: ArrayLike<number>, law: ArrayLike<number>): number {
  const total = Array.from(counts).reduce((a, b) => a + b, 0);
  let [statistic, cells] = [0, 0];
  for (let i = 0; i < law.length; i++) {
    const expected = at(law, i) * total;
    if (expected === 0) {
      if (at(counts, i) > 0) return 0;
      continue;
    }
    statistic += (at(counts, i) - expected) ** 2 / expected;
    cells++;
  }
  return chiSquareTail(statistic, cells - 1);
}

/** Philox4x32-10 from its paper, in 16-bit halves and so independent of the native version. */
export function philox(counter: number[], key: number[]): number[] {
  const product = (a: number, b: number): [number, number] => {
    const [a1, a0, b1, b0] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
    const middle = a1 * b0 + Math.floor((a0 * b0) / 65536) + ((a0 * b1) % 2 ** 32);
    const high = a1 * b1 + Math.floor(middle / 65536);
    return [high >>> 0, Math.imul(a, b) >>> 0];
  };
  let [c0 = 0, c1 = 0, c2 = 0, c3 = 0] = counter;
  let [k0 = 0, k1 = 0] = key;
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = product(0xd2511f53, c0);
    const [high1, low1] = product(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** The draw for a position, in [0, 1): 53 bits of block (position, choice 0, purpose 0) under the seed. */
export function uniformAt(seed: bigint, position: number): number {
  const key = [Number(seed & 0xffffffffn), Number(seed >> 32n)];
  const [high = 0, low = 0] = philox([position, 0, 0, 0], key);
  return (high * 2 ** 21 + (low >>> 11)) * 2 ** -53;
}
