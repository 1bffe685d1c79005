/** The emulator that runs CUDA kernels on the host: what it computes, and the faults it must find. */
import { describe, expect, it } from 'vitest';

import { at, range } from '../kit/arrays.js';
import { Random } from '../kit/random.js';
import { testing } from '../kit/testing.js';

interface Simt {
  run(
    name: string,
    input: Uint32Array,
    outputWords: number,
    blocks: number,
    threads: number,
    seed: number,
  ): { output: Uint32Array; error: string | null };
}

const simt = testing['simt'] as Simt | undefined;
/** The bits of a multiple of 1/8 below 4 in size. */
const bf16 = (value: number): number => at(new Uint32Array(Float32Array.of(value).buffer), 0) >>> 16;
const f16 = (value: number): number => {
  if (value === 0) return 0;
  const exponent = Math.floor(Math.log2(Math.abs(value)));
  return (value < 0 ? 0x8000 : 0) | ((exponent + 15) << 10) | ((Math.abs(value) / 2 ** exponent - 1) * 1024);
};

const SEEDS = range(8);

describe.skipIf(simt === undefined)('the emulator', () => {
  const run: Simt['run'] = (...args) => (simt as Simt).run(...args);
  const words = (count: number, seed: number): Uint32Array => {
    const random = new Random(seed);
    return Uint32Array.from(range(count), () => random.uint32());
  };

  it('runs blocks, barriers and shared memory', () => {
    for (const threads of [32, 33, 256, 1024]) {
      const input = words(5 * threads, threads);
      const sums = range(5).map((block) => {
        let sum = 0;
        for (const value of input.subarray(block * threads, (block + 1) * threads)) sum = (sum + value) >>> 0;
        return sum;
      });
      for (const seed of SEEDS) {
        const { output, error } = run('block sum', input, 5, 5, threads, seed);
        expect(error).toBeNull();
        expect(Array.from(output)).toEqual(sums);
      }
    }
  });

  it('shuffles and votes', () => {
    const [blocks, threads] = [3, 96];
    const input = words(blocks * threads, 1);
    const expected = Array.from(input, (v, i) => {
      const lane = i % 32;
      const first = i - lane;
      const from = (other: number): number => at(input, first + other);
      const odd = (begin: number, count: number): number[] =>
        Array.from(input.subarray(begin, begin + count), (value) => value & 1);
      const block = i - (i % threads);
      return [
        from((lane * 7) % 32),
        from(lane ^ 5),
        from(lane < 3 ? lane : lane - 3),
        from(lane % 8 > 4 ? lane : lane + 3),
        0xffffffff,
        odd(first, 32).reduce((bits, bit, index) => (bits | (bit << index)) >>> 0, 0),
        2,
        odd(block, threads).reduce((sum, bit) => sum + bit, 0),
      ];
    }).flat();
    expect(input.every((v) => v > 7)).toBe(true);
    for (const seed of SEEDS) {
      const { output, error } = run('collectives', input, input.length * 8, blocks, threads, seed);
      expect(error).toBeNull();
      expect(Array.from(output)).toEqual(expected);
    }
  });

  it.each(['bf16', 'f16'] as const)('multiplies matrices of %s', (dtype) => {
    const random = new Random(3);
    const number = dtype === 'bf16' ? bf16 : f16;
    for (const seed of SEEDS) {
      // Multiples of 1/8 below 4: exact in both types, and so are the sums.
      const elements = (count: number): number[] => range(count).map(() => random.integer(-31, 32) / 8);
      const [a, b, d] = [elements(16 * 16), elements(8 * 16), elements(16 * 8)];
      const halves = new Uint32Array(Uint16Array.from([...a, ...b], number).buffer);
      const input = Uint32Array.from([...halves, ...new Uint32Array(Float32Array.from(d).buffer)]);
      const expected = d.map((sum, i) => {
        const [m, n] = [Math.floor(i / 8), i % 8];
        return range(16).reduce((total, k) => total + at(a, m * 16 + k) * at(b, n * 16 + k), sum);
      });
      const { output, error } = run(`mma ${dtype}`, input, 128, 1, 32, seed);
      expect(error).toBeNull();
      expect(Array.from(new Float32Array(output.buffer))).toEqual(expected);
    }
  });

  it('loads matrices', () => {
    const input = words(128, 4);
    const halves = new Uint16Array(input.buffer);
    const expected = range(32).flatMap((lane) => {
      const [group, member] = [Math.floor(lane / 4), lane % 4];
      const pair = (index: (k: number) => number): number =>
        (at(halves, index(0)) | (at(halves, index(1)) << 16)) >>> 0;
      const plain = range(4).map((m) => pair((k) => m * 64 + group * 8 + 2 * member + k));
      const transposed = range(4).map((m) => pair((k) => m * 64 + (2 * member + k) * 8 + group));
      return [...plain, ...transposed, ...plain.slice(2, 4)];
    });
    for (const seed of SEEDS) {
      const { output, error } = run('ldmatrix', input, 320, 1, 32, seed);
      expect(error).toBeNull();
      expect(Array.from(output)).toEqual(expected);
    }
  });

  it('copies asynchronously', () => {
    const [blocks, threads] = [2, 64];
    const input = words(blocks * threads * 16, 5);
    const expected = Array.from(input, (v, i) => (Math.floor(i / 4) % 5 === 3 ? 0 : v));
    for (const seed of SEEDS) {
      const { output, error } = run('async copy', input, input.length, blocks, threads, seed);
      expect(error).toBeNull();
      expect(Array.from(output)).toEqual(expected);
    }
  });

  it('reports threads that wait for ones that have ended', () => {
    const { error } = run('divergent barrier', new Uint32Array(1), 1, 1, 64, 1);
    expect(error).toMatch(/^divergent barrier, block \(0, 0, 0\), thread .*: divergence: of 64 threads/);
    expect(error).toMatch(/32 wait in __syncthreads \(first: thread \(0, 0, 0\)\)/);
  });
});
