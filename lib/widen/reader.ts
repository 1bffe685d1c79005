/** Reads what tensors hold, in slices; `inspect` has checked the headers before. */
import { closeSync, openSync, readSync } from 'node:fs';

import { RedrafterError } from '../errors.js';
import { type TensorInfo } from '../system.js';

/** Where the tensors of a safetensors file begin, by name. */
function offsetsOf(file: string): Map<string, number> {
  const fd = openSync(file, 'r');
  try {
    const length = Buffer.alloc(8);
    readSync(fd, length, 0, 8, 0);
    const text = Buffer.alloc(Number(length.readBigUInt64LE()));
    readSync(fd, text, 0, text.length, 8);
    const header = JSON.parse(text.toString()) as Record<string, { data_offsets?: [number, number] }>;
    return new Map(
      Object.entries(header).map(([name, { data_offsets: offsets }]) => [name, 8 + text.length + (offsets?.[0] ?? 0)]),
    );
  } finally {
    closeSync(fd);
  }
}

/** Reads slices of the tensors of a checkpoint, whose headers were checked before. */
export class TensorReader {
  private readonly files = new Map<string, { fd: number; offsets: Map<string, number> }>();

  /** Bytes [begin, begin + length) of a tensor. */
  slice(tensor: TensorInfo, begin: number, length: number): Uint8Array {
    let file = this.files.get(tensor.file);
    if (file === undefined) {
      file = { fd: openSync(tensor.file, 'r'), offsets: offsetsOf(tensor.file) };
      this.files.set(tensor.file, file);
    }
    const bytes = new Uint8Array(length);
    const read = readSync(file.fd, bytes, 0, length, (file.offsets.get(tensor.name) ?? NaN) + begin);
    if (read !== length) throw new RedrafterError('ERR_FILE', `${tensor.file} ended while it was read`);
    return bytes;
  }

  close(): void {
    for (const { fd } of this.files.values()) closeSync(fd);
  }
}
