/** Builds the good and bad model directories of these tests. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect } from 'vitest';

import { temporaryDirectory } from '../../kit/checkpoint.js';
import { testing } from '../../kit/testing.js';

export const io = testing.io;

export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

const root = temporaryDirectory('io');
let directories = 0;

/** A new directory holding the given files. */
export function directory(files: Record<string, string | Uint8Array> = {}): string {
  const path = join(root, String(directories++));
  mkdirSync(path);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(path, name), content);
  return path;
}

/** Runs something that must throw the given code, with a message that matches all of the patterns. */
export function expectError(run: () => unknown, code: string, ...patterns: RegExp[]): void {
  let error: (Error & { code?: string }) | undefined;
  try {
    run();
  } catch (thrown) {
    error = thrown as Error;
  }
  if (error === undefined) throw new Error(`expected ${code}, but nothing was thrown`);
  expect(`${error.code}: ${error.message}`).toMatch(new RegExp(`^${code}: `));
  for (const pattern of patterns) expect(error.message).toMatch(pattern);
  // eslint-disable-next-line no-control-regex
  expect(error.message, 'no control characters in messages').not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
  expect(error.message.length).toBeLessThan(5000);
}

/** Processor time in milliseconds; other work on the machine does not count. */
export function cpuMs(run: () => void): number {
  const start = process.cpuUsage();
  run();
  const used = process.cpuUsage(start);
  return (used.user + used.system) / 1000;
}

/** One tensor of a header as JSON text. */
export function entry(name: string, dtype: string, shape: unknown, offsets: unknown): string {
  const text = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));
  return `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":${text(shape)},"data_offsets":${text(offsets)}}`;
}

export const header = (...entries: string[]): string => `{${entries.join(',')}}`;

/** A file with this header text and data, and the length that belongs to it unless another is given. */
export function safetensors(text: string | Uint8Array, data: Uint8Array | number, length?: bigint): Uint8Array {
  const json = typeof text === 'string' ? utf8(text) : text;
  const bytes = typeof data === 'number' ? new Uint8Array(data) : data;
  const file = new Uint8Array(8 + json.length + bytes.length);
  new DataView(file.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  file.set(json, 8);
  file.set(bytes, 8 + json.length);
  return file;
}

/** A file of F32 tensors of two elements each; tensor i holds i and i + 0.5. */
export function simple(...names: string[]): Uint8Array {
  const entries = names.map((name, i) => entry(name, 'F32', [2], [8 * i, 8 * i + 8]));
  const data = new Float32Array(names.flatMap((_, i) => [i, i + 0.5]));
  return safetensors(header(...entries), new Uint8Array(data.buffer));
}

/** Gives a random integer from 0 to below - 1. */
export type Random = (below: number) => number;

/** A deterministic source of random numbers. */
export function xorshift(seed: number): Random {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % below;
  };
}

/** A random element of a list that is not empty. */
export function pick<T>(random: Random, list: readonly T[]): T {
  return list[random(list.length)] as T;
}
