/** Writes models and drafters whose matrices are quantised. */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { type TensorToWrite, writeCheckpoint } from '../checkpoint-files.js';
import { invalid } from '../errors.js';
import { inspect, type TensorInfo } from '../system.js';
import type { TensorReader } from '../widen/reader.js';
import { GROUP, quantiseRow, rowBytes, type QuantisedForm } from './groups.js';

/** What was written. */
export interface QuantisedFiles {
  /** Size of all tensors, in bytes. */
  bytes: number;
  /** Before. */
  sourceBytes: number;
}

/** Rows are read in slabs of about this size. */
const SLAB_BYTES = 4 << 20;

const ELEMENT_BYTES: Readonly<Record<string, number>> = { f32: 4, f16: 2, bf16: 2 };

/** Stored floats, widened; exact. */
function widened(bytes: Uint8Array, dtype: string): Float32Array {
  const copy = bytes.slice(); // begins a buffer of its own, so that it is aligned
  if (dtype === 'f32') return new Float32Array(copy.buffer);
  const stored = new Uint16Array(copy.buffer);
  if (dtype === 'bf16') return new Float32Array(Uint32Array.from(stored, (half) => half << 16).buffer);
  return Float32Array.from(stored, (half) => {
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >> 10) & 0x1f;
    const mantissa = half & 0x3ff;
    if (exponent === 0x1f) return mantissa ? NaN : sign * Infinity;
    return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1024 + mantissa) * 2 ** (exponent - 25);
  });
}

/** The matrix as groups, slab by slab. */
function* quantisedRows(reader: TensorReader, tensor: TensorInfo, form: QuantisedForm): Generator<Uint8Array> {
  const [rows = 0, columns = 0] = tensor.shape;
  const storedBytes = columns * (ELEMENT_BYTES[tensor.dtype] ?? NaN);
  const slab = Math.max(1, Math.floor(SLAB_BYTES / storedBytes));
  for (let first = 0; first < rows; first += slab) {
    const count = Math.min(slab, rows - first);
    const values = widened(reader.slice(tensor, first * storedBytes, count * storedBytes), tensor.dtype);
    const out = new Uint8Array(count * rowBytes(form, columns));
    for (let row = 0; row < count; row++) {
      const own = values.subarray(row * columns, (row + 1) * columns);
      const column = quantiseRow(own, form, out, row * rowBytes(form, columns));
      if (column < 0) continue;
      throw invalid(
        `${form} cannot hold element [${first + row}, ${column}] of tensor "${tensor.name}": ${own[column] ?? NaN}`,
      );
    }
    yield out;
  }
}

/** Matrices are quantised, all else stays as it is. */
function quantised(reader: TensorReader, tensor: TensorInfo, form: QuantisedForm): TensorToWrite {
  const { name, dtype, shape, bytes } = tensor;
  const [rows = 0, columns = 0] = shape;
  if (shape.length !== 2 || !(dtype in ELEMENT_BYTES)) {
    return { name, dtype, shape, bytes, pieces: () => [reader.slice(tensor, 0, bytes)] };
  }
  const groups = rowBytes(form, columns);
  const pieces = (): Iterable<Uint8Array> => quantisedRows(reader, tensor, form);
  return { name, dtype: 'u8', shape: [rows, groups], bytes: rows * groups, pieces };
}

/**
 * Writes the model or drafter in `directory` with its matrices quantised to `out`, which must be empty or new. Loading it gives
 * the same bits as loading `directory` with that `dtype` (a drafter with that `drafterDtype`). Throws ERR_INVALID_ARGUMENT for a
 * model that is quantised already, and for a weight that is not finite or too large; otherwise as `inspect`.
 */
export async function quantize(directory: string, form: QuantisedForm, out: string): Promise<QuantisedFiles> {
  if (resolve(out) === resolve(directory)) throw invalid('the output must be another directory');
  const { tensors, totalBytes } = await inspect(directory);
  const config = JSON.parse(readFileSync(join(directory, 'config.json'), 'utf8')) as Record<string, unknown>;
  if (config['quantization_config'] !== undefined) throw invalid(`${directory} is quantised already`);
  const method = { quant_method: 'redrafter', format: form, group_size: GROUP };
  let bytes = 0;
  writeCheckpoint(directory, out, { ...config, quantization_config: method }, (reader) => {
    const list = tensors.map((tensor) => quantised(reader, tensor, form));
    bytes = list.reduce((sum, tensor) => sum + tensor.bytes, 0);
    return list;
  });
  return { bytes, sourceBytes: totalBytes };
}
