/** Seeded mutations of good headers and files: each must parse or give an Error with a code, and quickly. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';

import { directory, entry, header, io, pick, type Random, simple, utf8, xorshift } from './build.js';

const DTYPES = [
  ['F32', 4],
  ['F16', 2],
  ['BF16', 2],
  ['I64', 8],
  ['U8', 1],
  ['F8_E4M3', 1],
] as const;

/** A header of up to eight tensors and the size of its data. */
function randomHeader(random: Random): { text: string; dataBytes: number } {
  const entries = random(2) === 0 ? ['"__metadata__":{"format":"pt","n":"\\u00e9\\n"}'] : [];
  let offset = 0;
  for (let i = random(8); i > 0; --i) {
    const [dtype, bytes] = pick(random, DTYPES);
    const shape = Array.from({ length: random(4) }, () => random(5));
    const end = offset + shape.reduce((product, size) => product * size, 1) * bytes;
    entries.push(entry(`layer.${i}.weight`, dtype, shape, [offset, end]));
    offset = end;
  }
  const keys = new Map(entries.map((each) => [each, random(1000)]));
  entries.sort((a, b) => (keys.get(a) ?? 0) - (keys.get(b) ?? 0));
  return { text: header(...entries) + ' '.repeat(random(8)), dataBytes: offset };
}

const TOKENS = [
  ...'{ } [ ] , : " \\ \\u0000 \\ud800 - 0 1 1e2 1.5 -0 18446744073709551615 18446744073709551616'.split(' '),
  ...'9223372036854775808 null true "F32" "f32" "dtype" "shape" "data_offsets" "__metadata__" [0,0] {}'.split(' '),
  ...[' ', '\n', '\u0000', '\u00ff', '\ud83d\ude00', '['.repeat(16)],
].map(utf8);

/** Overwrites, deletes, inserts or repeats a piece. */
function mutate(bytes: Uint8Array, random: Random): Uint8Array {
  const at = random(bytes.length + 1);
  const until = Math.min(bytes.length, at + random(12));
  const kind = random(5);
  if (kind === 0 && at < bytes.length) {
    const copy = bytes.slice();
    copy[at] = random(256);
    return copy;
  }
  const middle = kind === 1 ? new Uint8Array(0) : kind === 2 ? bytes.slice(at, until) : pick(random, TOKENS);
  return new Uint8Array([
    ...bytes.subarray(0, at),
    ...middle,
    ...bytes.subarray(kind === 2 || kind === 4 ? at : until),
  ]);
}

it('20,000 mutated headers', () => {
  const random = xorshift(2403);
  let loaded = 0;
  let slowest = 0;
  for (let i = 0; i < 20_000; ++i) {
    const { text, dataBytes } = randomHeader(random);
    let bytes = utf8(text);
    for (let n = random(3); n > 0; --n) bytes = mutate(bytes, random);
    const start = process.cpuUsage();
    try {
      const tensors = io.parseHeader(bytes, 8 + bytes.length + dataBytes);
      ++loaded;
      // What loads covers the data without holes or overlaps.
      let end = 0;
      for (const tensor of tensors) {
        if (tensor.begin !== end) throw new Error(`hole before ${tensor.name}`);
        end = tensor.end;
      }
      if (end !== dataBytes) throw new Error('tensors do not end with the data');
    } catch (error) {
      if ((error as { code?: string }).code !== 'ERR_MODEL_FORMAT') throw error;
    }
    slowest = Math.max(slowest, process.cpuUsage(start).user / 1000);
  }
  expect(loaded).toBeGreaterThan(5000);
  expect(loaded).toBeLessThan(18_000);
  expect(slowest).toBeLessThan(1000);
});

it('5,000 random byte strings', () => {
  const random = xorshift(919);
  for (let i = 0; i < 5000; ++i) {
    const bytes = Uint8Array.from({ length: random(64) }, () => random(256));
    expect(() => io.parseHeader(bytes, 8 + bytes.length)).toThrow(/invalid JSON|must be a JSON object/);
  }
});

it('500 mutated files', () => {
  const random = xorshift(17);
  const dir = directory();
  for (let i = 0; i < 500; ++i) {
    let bytes = simple('a', 'b', 'c');
    for (let n = 1 + random(3); n > 0; --n) bytes = mutate(bytes, random);
    writeFileSync(join(dir, 'model.safetensors'), bytes);
    try {
      const checkpoint = io.openCheckpoint(dir);
      for (const tensor of checkpoint.tensors)
        expect(checkpoint.read(tensor.name, 0, tensor.bytes)).toHaveLength(tensor.bytes);
      checkpoint.close();
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_MODEL_FORMAT' });
    }
  }
});

it('1,000 mutated indexes', () => {
  const random = xorshift(23);
  const dir = directory({ 'a.safetensors': simple('a', 'c'), 'b.safetensors': simple('b') });
  const text = utf8(
    '{"metadata":{"total_size":24},"weight_map":{"a":"a.safetensors","b":"b.safetensors","c":"a.safetensors"}}',
  );
  for (let i = 0; i < 1000; ++i) {
    let bytes = text;
    for (let n = random(3); n > 0; --n) bytes = mutate(bytes, random);
    writeFileSync(join(dir, 'model.safetensors.index.json'), bytes);
    try {
      const checkpoint = io.openCheckpoint(dir);
      expect(checkpoint.totalBytes).toBe(24);
      checkpoint.close();
    } catch (error) {
      // A mutated shard name is a plain name that does not exist.
      expect((error as { code?: string }).code).toMatch(/^ERR_(MODEL_FORMAT|FILE)$/);
    }
  }
});
