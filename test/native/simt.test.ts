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
    checking: boolean,
    forbidden?: number,
  ): { output: Uint32Array; counter: number; error: string | null };
  /** Whether this build sees what kernels do with memory; one with sanitizers does not. */
  canCheck: boolean;
  compiler: 'gcc' | 'clang';
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

function words(count: number, seed: number): Uint32Array {
  const random = new Random(seed);
  return Uint32Array.from(range(count), () => random.uint32());
}

function run(name: string, input: Uint32Array, outputWords: number, blocks: number, threads: number, seed: number) {
  return (simt as Simt).run(name, input, outputWords, blocks, threads, seed, true);
}

/** Runs a kernel that takes and gives a word for every thread, under every seed. */
function runAll(name: string, blocks: number, threads: number, checking = true) {
  const count = blocks * threads;
  const input = words(name.startsWith('copy') ? 4 * count : count, 6);
  return SEEDS.map((seed) => ({ input, ...(simt as Simt).run(name, input, count, blocks, threads, seed, checking) }));
}

describe.skipIf(simt === undefined)('the emulator', () => {
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
    const expected = Array.from(input, (_, i) => {
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

  it('lets the last block to come add up what all have written', () => {
    const [blocks, threads] = [7, 64];
    for (const variant of ['writers fence', 'counter fences']) {
      for (const { input, output, counter, error } of runAll(`last arriver, ${variant}`, blocks, threads)) {
        expect(error).toBeNull();
        expect(counter).toBe(0);
        const sums = range(threads).map((thread) =>
          range(blocks).reduce((sum, block) => (sum + at(input, block * threads + thread)) >>> 0, 0),
        );
        expect(Array.from(output.subarray(0, threads))).toEqual(sums);
      }
    }
  });

  it.each([
    ['divergent barrier', 64, /^divergent barrier, block \(0, 0, 0\), thread .*: divergence: of 64 threads/],
    ['divergent barrier', 64, /32 wait in __syncthreads \(first: thread \(0, 0, 0\)\)/],
    ['a lane leaves', 32, /divergence: of 32 threads 31 wait in __ballot_sync .*, 1 have ended/],
    ['half a warp', 32, /divergence: __(shfl_sync|syncwarp) while other lanes of the warp wait in __/],
    ['two barriers', 64, /divergence: __syncthreads(_or)? while other threads wait in __syncthreads/],
    ['half a mask', 32, /__shfl_sync with a mask that is not full/],
    ['a lane leaves', 16, /__ballot_sync in a warp of 16 threads/],
    ['too much shared memory', 32, /more shared memory than a block can have/],
    ['halves', 1056, /invalid number of threads/],
    ['misaligned stream', 32, /misaligned address 0x\w+ in load_stream_16/],
    ['misaligned ldmatrix', 32, /misaligned address 0x\w+ in ldmatrix_x2/],
    ['misaligned copy', 32, /misaligned address 0x\w+ in copy_async_16/],
  ])('reports a fault: %s of %i threads', (name, threads, message) => {
    for (const { error } of runAll(name, 1, threads, false)) expect(error).toMatch(message);
  });

  it('runs on after a fault', () => {
    expect(run('divergent barrier', new Uint32Array(64), 64, 1, 64, 1).error).not.toBeNull();
    expect(run('block sum', words(64, 1), 1, 1, 64, 1).error).toBeNull();
  });

  it('shows old bytes to a thread that does not wait for its copy, on some runs', () => {
    const outcomes = runAll('copy, own, no wait', 1, 32, false).map(({ input, output, error }) => {
      expect(error).toBeNull();
      return range(32).filter((i) => at(output, i) === at(input, 4 * i)).length;
    });
    expect(Math.max(...outcomes)).toBeGreaterThan(0);
    expect(Math.min(...outcomes)).toBeLessThan(32);
  });
});

describe.skipIf(simt?.canCheck !== true)('the checker', () => {
  it.each([
    ['shared, block barrier', 1, 256],
    ['warp, barrier', 2, 64],
    ['write after reads, block barrier', 2, 64],
    ['write after reads, warp barrier', 2, 32],
    ['halves', 1, 64],
    ['atomics', 1, 64],
    ['constant', 1, 32],
    ['copy, waits and meets', 1, 64],
    ['copy, own', 1, 64],
  ])('passes what is right: %s', (name, blocks, threads) => {
    for (const { error } of runAll(name, blocks, threads)) expect(error).toBeNull();
  });

  const unordered = 'with nothing that orders them \\(code at 0x\\w+ of the module\\)$';
  const between = 'and no fence and atomic operation order the blocks';
  it.each([
    [
      'shared, no barrier',
      1,
      64,
      `race: (reads|writes) 4 bytes .* of shared .*::words, which thread .* (read|wrote), ${unordered}`,
    ],
    ['shared, warp barrier only', 1, 64, `race: .*${unordered}`],
    ['warp, no barrier', 1, 32, `race: .*${unordered}`],
    ['warp, shuffle only', 1, 32, `race: .*${unordered}`],
    ['write after reads, no barrier', 1, 32, 'race: .*(read|wrote)'],
    ['write after reads, warp barrier', 1, 64, 'race: .*(read|wrote)'],
    ['atomics and a write', 1, 64, 'race: '],
    [
      'blocks, same word',
      2,
      32,
      `race: writes 4 bytes .* allocation of 256 bytes, which thread .* of block .* wrote, ${between}`,
    ],
    ['blocks, in place', 3, 32, `race: .* of block .* (read|wrote), ${between}`],
    ['last arriver, no fence', 4, 64, `race: reads 4 bytes .* of block .* wrote, ${between}`],
    ['last arriver, no meeting', 4, 64, `race: reads 4 bytes .* of block .* wrote, ${between}`],
    ['last arriver, reader without fence', 4, 64, `race: reads 4 bytes .* of block .* wrote, ${between}`],
    ['write behind', 1, 32, 'out of bounds: writes 4 bytes at 0x\\w+, 0 bytes after an allocation of 128 bytes'],
    ['write a byte behind', 1, 32, 'out of bounds: writes 1 bytes at 0x\\w+, 0 bytes after an allocation of 128 bytes'],
    ['read behind', 1, 32, 'out of bounds: reads 4 bytes at 0x\\w+, 0 bytes after an allocation of 128 bytes'],
    [
      'write across the end',
      1,
      33,
      'out of bounds: writes 8 bytes at 0x\\w+, 4 bytes before the end of an allocation of 132 bytes',
    ],
    ['write before', 1, 32, 'out of bounds: writes 4 bytes at 0x\\w+, 4 bytes before an allocation of 128 bytes'],
    ['write far away', 1, 32, 'out of bounds: writes 4 bytes'],
    ['dynamic write behind', 1, 32, 'out of bounds: writes 4 bytes at 0x\\w+, 0 bytes after the dynamic shared memory'],
    ['dynamic read before', 1, 32, 'out of bounds: reads 4 bytes at 0x\\w+, 4 bytes before the dynamic shared memory'],
    ['static write behind', 1, 64, 'index 64 is out of bounds, at .*faults.cu:'],
    ['host memory', 1, 32, 'out of bounds: reads 4 bytes'],
    ['another stack', 1, 32, 'out of bounds: reads 4 bytes'],
    ['misaligned member', 1, 32, 'misaligned address 0x\\w+, which needs a multiple of 16, at .*faults.cu:'],
    ['copy, no barrier', 1, 64, 'race: (reads|writes|copy_async_16: writes) (4|16) bytes'],
    ['copy, own, no wait', 1, 64, 'race: reads 4 bytes .* is copying to: no wait has covered that'],
    ['copy, no wait', 1, 64, 'race: reads 4 bytes .* is copying to: no wait has covered that'],
  ])('reports a fault: %s', (name, blocks, threads, message) => {
    for (const { error } of runAll(name, blocks, threads)) expect(error).toMatch(new RegExp(message));
  });

  it.skipIf(simt?.compiler === 'clang')('reports a misaligned load of a whole vector', () => {
    for (const { error } of runAll('misaligned load', 1, 32))
      expect(error).toMatch(/misaligned address 0x\w+, which needs a multiple of 16, at .*faults.cu:/);
  });

  it('keeps kernels off what is forbidden of an allocation', () => {
    const input = words(64, 7);
    const { error } = (simt as Simt).run('warp, barrier', input, 64, 1, 64, 1, true, 8);
    expect(error).toMatch(
      /out of bounds: writes 4 bytes at 0x\w+, \d+ bytes (before|after) a part of 192 bytes of an allocation of 256 bytes/,
    );
    expect((simt as Simt).run('warp, barrier', input, 64, 1, 64, 1, true, 0).error).toBeNull();
  });

  it('can be off', () => {
    for (const { error } of runAll('shared, no barrier', 1, 64, false)) expect(error).toBeNull();
  });

  it('finds writes beside an allocation when it is off', () => {
    for (const { error } of runAll('write a byte behind', 1, 32, false))
      expect(error).toMatch('wrote after an allocation of 128 bytes');
  });
});
