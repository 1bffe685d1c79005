/** Reads a GGUF, written from the format's description alone, so that it cannot share a mistake with the writer. */
import { readFileSync } from 'node:fs';

export interface GgufValue {
  type: number;
  /** Type of the elements of an array. */
  of?: number;
  value: unknown;
}

export interface GgufTensor {
  name: string;
  type: number;
  /** Innermost first, as in the file. */
  dimensions: number[];
  offset: number;
}

export interface Gguf {
  version: number;
  metadata: Map<string, GgufValue>;
  tensors: GgufTensor[];
  dataOffset: number;
  fileBytes: number;
  bytes: (name: string, length: number) => Uint8Array<ArrayBuffer>;
}

class Cursor {
  at = 0;

  constructor(readonly data: Buffer) {}

  private step(bytes: number): number {
    this.at += bytes;
    return this.at - bytes;
  }

  u32(): number {
    return this.data.readUInt32LE(this.step(4));
  }

  u64(): number {
    return Number(this.data.readBigUInt64LE(this.step(8)));
  }

  string(): string {
    const length = this.u64();
    const from = this.step(length);
    return this.data.toString('utf8', from, from + length);
  }

  scalar(type: number): unknown {
    if (type === 4) return this.u32();
    if (type === 5) return this.data.readInt32LE(this.step(4));
    if (type === 6) return this.data.readFloatLE(this.step(4));
    if (type === 7) return this.data.readUInt8(this.step(1)) === 1;
    if (type === 8) return this.string();
    throw new Error(`type ${type}`);
  }

  value(): GgufValue {
    const type = this.u32();
    if (type !== 9) return { type, value: this.scalar(type) };
    const of = this.u32();
    const count = this.u64();
    return { type, of, value: Array.from({ length: count }, () => this.scalar(of)) };
  }
}

export function readGguf(path: string): Gguf {
  const data = readFileSync(path);
  const cursor = new Cursor(data);
  if (data.toString('latin1', 0, 4) !== 'GGUF') throw new Error('no GGUF');
  cursor.at = 4;
  const version = cursor.u32();
  const [tensorCount, entryCount] = [cursor.u64(), cursor.u64()];
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < entryCount; i++) metadata.set(cursor.string(), cursor.value());
  const tensors = Array.from({ length: tensorCount }, () => {
    const name = cursor.string();
    const dimensions = Array.from({ length: cursor.u32() }, () => cursor.u64());
    return { name, dimensions, type: cursor.u32(), offset: cursor.u64() };
  });
  const dataOffset = Math.ceil(cursor.at / 32) * 32;
  const bytes = (name: string, length: number): Uint8Array<ArrayBuffer> => {
    const tensor = tensors.find((one) => one.name === name);
    if (tensor === undefined) throw new Error(`no tensor ${name}`);
    const from = dataOffset + tensor.offset;
    if (from + length > data.length) throw new Error(`${name} ends behind the file`);
    return Uint8Array.from(data.subarray(from, from + length));
  };
  return { version, metadata, tensors, dataOffset, fileBytes: data.length, bytes };
}
