/**
 * The addon with the bindings that only tests use. REDRAFTER_TESTING_ADDON points to another build of it, and
 * REDRAFTER_FOREIGN_NODE says how to run a Node.js that can load it when this one cannot.
 */
import { createRequire } from 'node:module';

import { connect } from './foreign.js';
import type { Ops } from './ops.js';

export interface ParsedTensor {
  name: string;
  dtype: string;
  usable: boolean;
  shape: number[];
  begin: number;
  end: number;
}

export interface TensorEntry {
  name: string;
  dtype: string;
  shape: number[];
  bytes: number;
  file: number;
  offset: number;
}

export interface OpenCheckpoint {
  tensors: TensorEntry[];
  files: string[];
  totalBytes: number;
  find(name: string): TensorEntry | null;
  read(name: string, offset: number, bytes: number): Uint8Array | null;
  close(): void;
}

export type ParsedJson =
  | null
  | boolean
  | string
  | { number: string; u64: bigint | null; double: number | null }
  | ParsedJson[]
  | { members: [string, ParsedJson][] };

export interface Io {
  parseJson(bytes: Uint8Array): ParsedJson;
  quote(bytes: Uint8Array): string;
  parseLength(first: Uint8Array, fileBytes: bigint): number;
  parseHeader(header: Uint8Array, fileBytes: bigint | number): ParsedTensor[];
  openCheckpoint(directory: string): OpenCheckpoint;
  readModelConfig(directory: string): Record<string, unknown>;
  readDrafterConfig(directory: string): Record<string, unknown>;
  /** The n-th file read from now on fails; 0 for none. */
  failRead(n: number): void;
  /** Writes pieces to a file, the `failAt`-th write failing (0 for none), and puts it in its place if it `commits`. */
  writeFile(path: string, pieces: Uint8Array[], failAt: number, commits: boolean): void;
  /** XXH64 of the concatenation. */
  checksum(pieces: Uint8Array[]): bigint;
}

export interface Testing {
  io: Io;
  ops: Ops;
  /** Bindings of other tests, which state their types themselves. */
  [name: string]: unknown;
}

const path = process.env['REDRAFTER_TESTING_ADDON'] ?? '../../build/testing/redrafter_testing.node';

const foreign = process.env['REDRAFTER_FOREIGN_NODE'];

export const testing = (
  foreign === undefined ? createRequire(import.meta.url)(path) : connect(foreign, path)
) as Testing;
