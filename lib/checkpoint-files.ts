/** Reads and writes the files of models and drafters, for what makes other ones of them. */
import { closeSync, copyFileSync, mkdirSync, openSync, readdirSync, renameSync, statSync, writeFileSync, writeSync } from 'node:fs'; // prettier-ignore
import { join } from 'node:path';

import { invalid } from './errors.js';
import { TensorReader } from './widen/reader.js';

/** A tensor of a file to write. */
export interface TensorToWrite {
  name: string;
  /** As safetensors names it, in any case. */
  dtype: string;
  shape: number[];
  bytes: number;
  /** Its bytes, in order. */
  pieces: () => Iterable<Uint8Array>;
}

/** Writes the tensors as one safetensors file, which is complete or has another name. */
function writeTensors(path: string, tensors: readonly TensorToWrite[]): void {
  let end = 0;
  const header = Object.fromEntries(
    tensors.map(({ name, dtype, shape, bytes }) => {
      const begin = end;
      end += bytes;
      return [name, { dtype: dtype.toUpperCase(), shape, data_offsets: [begin, end] }];
    }),
  );
  const text = JSON.stringify(header);
  const padded = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const partial = `${path}.partial`;
  const fd = openSync(partial, 'w');
  try {
    const out = new Writer(fd);
    out.write(length);
    out.write(padded);
    for (const { pieces } of tensors) for (const piece of pieces()) out.write(piece);
    out.flush();
  } finally {
    closeSync(fd);
  }
  renameSync(partial, path);
}

/** Gathers small writes. */
class Writer {
  private readonly buffer = Buffer.alloc(4 << 20);
  private filled = 0;

  constructor(private readonly fd: number) {}

  write(bytes: Uint8Array): void {
    if (this.filled + bytes.length > this.buffer.length) this.flush();
    if (bytes.length > this.buffer.length) {
      this.all(bytes);
      return;
    }
    this.buffer.set(bytes, this.filled);
    this.filled += bytes.length;
  }

  flush(): void {
    this.all(this.buffer.subarray(0, this.filled));
    this.filled = 0;
  }

  private all(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) done += writeSync(this.fd, bytes, done);
  }
}

/** Makes a directory, which must not hold anything yet. */
function makeEmpty(out: string): void {
  mkdirSync(out, { recursive: true });
  if (readdirSync(out).length > 0) throw invalid(`${out} is not empty`);
}

/** The small files of a model beside its weights: tokenizer, templates, prompts. */
function copyOthers(from: string, to: string): void {
  for (const name of readdirSync(from)) {
    if (name === 'config.json' || /\.(safetensors|bin|pt|pth|gguf)$/.test(name) || name.endsWith('.index.json'))
      continue;
    if (statSync(join(from, name)).isFile()) copyFileSync(join(from, name), join(to, name));
  }
}

/**
 * Writes a model or drafter made of the one in `from` to `out`, which must be empty or new: these tensors, this configuration,
 * and its small files as they are. The configuration comes last, so that what was not finished is no model.
 */
export function writeCheckpoint(
  from: string,
  out: string,
  config: Record<string, unknown>,
  tensorsOf: (reader: TensorReader) => readonly TensorToWrite[],
): void {
  makeEmpty(out);
  copyOthers(from, out);
  const reader = new TensorReader();
  try {
    writeTensors(join(out, 'model.safetensors'), tensorsOf(reader));
  } finally {
    reader.close();
  }
  writeFileSync(join(out, 'config.json'), `${JSON.stringify(config, undefined, 1)}\n`);
}
