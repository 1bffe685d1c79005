/** Files are written whole or not at all; the checksum is XXH64. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { temporaryDirectory } from '../../kit/checkpoint.js';
import { Random } from '../../kit/random.js';
import { testing } from '../../kit/testing.js';
import { xxh64 } from '../../kit/xxh64.js';

const { io } = testing;
const folder = temporaryDirectory('writer');
const pieces = [Uint8Array.of(1, 2, 3), new Uint8Array(0), Uint8Array.of(4)];

describe('FileWriter', () => {
  it('replaces a file when it is complete', () => {
    const path = join(folder, 'a');
    writeFileSync(path, 'before');
    io.writeFile(path, pieces, 0, true);
    expect([...readFileSync(path)]).toEqual([1, 2, 3, 4]);
    expect(readdirSync(folder)).toEqual(['a']);
  });

  it('leaves what was there when a write fails or nothing is committed', () => {
    const path = join(folder, 'a');
    for (const failAt of [1, 2]) {
      writeFileSync(path, 'before');
      expect(() => {
        io.writeFile(path, pieces, failAt, true);
      }).toThrow(expect.objectContaining({ code: 'ERR_FILE' }) as Error);
      expect(readFileSync(path, 'utf8')).toBe('before');
    }
    io.writeFile(path, pieces, 0, false);
    expect(readFileSync(path, 'utf8')).toBe('before');
    expect(readdirSync(folder)).toEqual(['a']);
  });
});

describe('the checksum', () => {
  it('has the known values', () => {
    const text = (value: string): Uint8Array[] => [new TextEncoder().encode(value)];
    expect(io.checksum([])).toBe(0xef46db3751d8e999n);
    expect(io.checksum(text('abc'))).toBe(0x44bc2cf5ad770999n);
  });

  it('equals an independent implementation for every length, however the bytes arrive', () => {
    const random = new Random(7);
    const data = Uint8Array.from({ length: 200 }, () => random.integer(0, 256));
    for (let length = 0; length <= data.length; length++) {
      const whole = data.subarray(0, length);
      const cuts = [random.integer(0, length + 1), random.integer(0, length + 1)].sort((a, b) => a - b);
      const parts = [whole.subarray(0, cuts[0]), whole.subarray(cuts[0], cuts[1]), whole.subarray(cuts[1])];
      const expected = xxh64(Buffer.from(whole));
      expect(io.checksum([whole])).toBe(expected);
      expect(io.checksum(parts)).toBe(expected);
    }
  });
});
