// Writes a GGUF file, version 3: a header with typed metadata, the list of tensors, and their data, all little-endian.
import { Buffer } from 'node:buffer';
import { closeSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';

/** @typedef {'f32' | 'f16' | 'bf16' | 'q8_0' | 'q4_0'} Dtype */
/**
 * Number of a type in a file, and what a block of its elements takes.
 * @type {Readonly<Record<Dtype, { id: number, fileType: number, blockElements: number, blockBytes: number }>>}
 */
export const DTYPES = {
  f32: { id: 0, fileType: 0, blockElements: 1, blockBytes: 4 },
  f16: { id: 1, fileType: 1, blockElements: 1, blockBytes: 2 },
  bf16: { id: 30, fileType: 32, blockElements: 1, blockBytes: 2 },
  q8_0: { id: 8, fileType: 7, blockElements: 32, blockBytes: 34 },
  q4_0: { id: 2, fileType: 2, blockElements: 32, blockBytes: 18 },
};

/**
 * A value of the metadata; numbers have no type in JavaScript, so it is named.
 * @typedef {{ u32: number } | { i32s: readonly number[] } | { f32: number } | { bool: boolean } | { string: string } |
 *   { strings: readonly string[] }} MetaValue
 */

/**
 * A tensor to write. `shape` has the outermost dimension first, as in safetensors; the file has it the other way round.
 * @typedef {{ name: string, dtype: Dtype, shape: readonly number[], data: () => Iterable<Uint8Array> }} Tensor
 */

/** Each tensor begins at a multiple of this, counted from where the data begins. */
export const ALIGNMENT = 32;
const TYPE = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 };

/** @param {number} bytes */
const aligned = (bytes) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/** @param {number} value */
function u32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** @param {number} value */
function u64(value) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

/** @param {string} text */
function string(text) {
  const bytes = Buffer.from(text);
  return Buffer.concat([u64(bytes.length), bytes]);
}

/** @param {number} type @param {readonly Buffer[]} elements */
const array = (type, elements) => Buffer.concat([u32(TYPE.array), u32(type), u64(elements.length), ...elements]);

/** @param {number} number */
function i32(number) {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(number);
  return bytes;
}

/** The type and then the value. @param {MetaValue} value */
function metaBytes(value) {
  if ('u32' in value) return Buffer.concat([u32(TYPE.u32), u32(value.u32)]);
  if ('bool' in value) return Buffer.concat([u32(TYPE.bool), Buffer.from([value.bool ? 1 : 0])]);
  if ('string' in value) return Buffer.concat([u32(TYPE.string), string(value.string)]);
  if ('strings' in value) return array(TYPE.string, value.strings.map(string));
  if ('i32s' in value) return array(TYPE.i32, value.i32s.map(i32));
  const float = Buffer.alloc(4);
  float.writeFloatLE(value.f32);
  return Buffer.concat([u32(TYPE.f32), float]);
}

/** Size of a tensor in the file. @param {Pick<Tensor, 'name' | 'dtype' | 'shape'>} tensor */
export function tensorBytes({ name, dtype, shape }) {
  const { blockElements, blockBytes } = DTYPES[dtype];
  const columns = shape.at(-1) ?? 1;
  if (columns % blockElements !== 0) {
    throw new Error(
      `${name} has rows of ${columns} elements, which ${dtype} cannot hold: not a multiple of ${blockElements}`,
    );
  }
  return (shape.reduce((all, size) => all * size, 1) / blockElements) * blockBytes;
}

/**
 * Writes the file under another name first, so that one with its name is complete.
 * @param {string} path @param {Readonly<Record<string, MetaValue>>} metadata @param {readonly Tensor[]} tensors
 * @returns {number} the size of the tensors in bytes
 */
export function writeGguf(path, metadata, tensors) {
  let end = 0;
  const infos = tensors.map((tensor) => {
    const offset = end;
    end = aligned(offset + tensorBytes(tensor));
    const dimensions = tensor.shape.toReversed();
    return Buffer.concat([
      string(tensor.name),
      u32(dimensions.length),
      ...dimensions.map(u64),
      u32(DTYPES[tensor.dtype].id),
      u64(offset),
    ]);
  });
  const entries = Object.entries(metadata);
  const head = Buffer.concat([
    Buffer.from('GGUF'),
    u32(3),
    u64(tensors.length),
    u64(entries.length),
    ...entries.map(([key, value]) => Buffer.concat([string(key), metaBytes(value)])),
    ...infos,
  ]);
  const partial = `${path}.partial`;
  const fd = openSync(partial, 'w');
  try {
    writeSync(fd, Buffer.concat([head, Buffer.alloc(aligned(head.length) - head.length)]));
    for (const tensor of tensors) writeTensor(fd, tensor);
  } catch (error) {
    rmSync(partial);
    throw error;
  } finally {
    closeSync(fd);
  }
  renameSync(partial, path);
  return end;
}

/** @param {number} fd @param {Tensor} tensor */
function writeTensor(fd, tensor) {
  const bytes = tensorBytes(tensor);
  let written = 0;
  for (const piece of tensor.data()) written += writeSync(fd, piece);
  if (written !== bytes) throw new Error(`${tensor.name} gave ${written} bytes instead of ${bytes}`);
  writeSync(fd, Buffer.alloc(aligned(bytes) - bytes));
}
