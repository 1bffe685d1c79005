/** Writes wider models and drafters that compute what the small ones do. */
import { closeSync, copyFileSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync, writeSync } from 'node:fs'; // prettier-ignore
import { join, resolve } from 'node:path';

import { invalid } from '../errors.js';
import { inspect, type TensorInfo } from '../system.js';
import { drafterLayout, isJoined, targetLayout, widenedDrafterConfig, widenedModelConfig, widenedShape, type Axis, type Layout } from './layout.js'; // prettier-ignore
import { TensorReader } from './reader.js';
import { widenRows } from './rows.js';

/** The largest factor, which makes a layer 4096 times as large. */
export const MOST_WIDENING = 64;

/** A tensor to write: a stored one, and the axes along which it grows. */
interface Widened {
  name: string;
  source: TensorInfo;
  axes: readonly Axis[];
  shape: number[];
  bytes: number;
}

const SAME_AXIS: Axis = { blocks: 0, shared: false };

/** What was written. */
export interface WidenedFiles {
  /** Size of all tensors, in bytes. */
  bytes: number;
  /** Before. */
  sourceBytes: number;
}

function plan(tensors: readonly TensorInfo[], layout: Layout, factor: number): Widened[] {
  return tensors.flatMap((source) => {
    const axes = layout(source.name);
    if (axes === null) return [];
    const shape = widenedShape(source.shape, axes, factor);
    const ratio = shape.reduce((all, size, i) => all * (size / (source.shape[i] ?? size)), 1);
    return [{ name: source.name, source, axes, shape, bytes: source.bytes * ratio }];
  });
}

/** A tied head becomes a tensor of its own, as it is not widened like the embedding. */
function untied(tensors: readonly TensorInfo[], factor: number): Widened[] {
  const others = tensors.filter(({ name }) => name !== 'lm_head.weight');
  const embedding = tensors.filter(({ name }) => name === 'model.embed_tokens.weight');
  const head = plan(embedding, () => targetLayout('lm_head.weight'), factor);
  return [...plan(others, targetLayout, factor), ...head.map((wide) => ({ ...wide, name: 'lm_head.weight' }))];
}

/** Writes the tensors as one safetensors file, which is complete or has another name. */
function writeTensors(path: string, widened: readonly Widened[], factor: number): void {
  let end = 0;
  const header = Object.fromEntries(
    widened.map(({ name, source, shape, bytes }) => {
      const begin = end;
      end += bytes;
      return [name, { dtype: source.dtype.toUpperCase(), shape, data_offsets: [begin, end] }];
    }),
  );
  const text = JSON.stringify(header);
  const padded = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const reader = new TensorReader();
  const partial = `${path}.partial`;
  const fd = openSync(partial, 'w');
  try {
    const out = new Writer(fd);
    out.write(length);
    out.write(padded);
    for (const { source, axes } of widened) {
      const rows = source.shape.length > 1 ? (source.shape[0] ?? 0) : 1;
      const rowBytes = rows === 0 ? 0 : source.bytes / rows;
      const columns = source.shape[source.shape.length - 1] ?? 1;
      const read = (first: number, count: number): Uint8Array =>
        reader.slice(source, first * rowBytes, count * rowBytes);
      const both = [axes.length > 1 ? (axes[0] ?? SAME_AXIS) : SAME_AXIS, axes[axes.length - 1] ?? SAME_AXIS] as const;
      for (const piece of widenRows({ dtype: source.dtype, rows, columns, read }, both, factor)) out.write(piece);
    }
    out.flush();
  } finally {
    closeSync(fd);
    reader.close();
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
 * Writes a model or drafter whose hidden units, heads and feed-forward units are there `factor` times, with weights shared out
 * among the copies: it computes what the one in `directory` does, with about factor^2 the weights. Its logits differ in rounding
 * alone. A drafter must be widened by the factor of its target.
 */
export async function widen(directory: string, factor: number, out: string): Promise<WidenedFiles> {
  if (!Number.isInteger(factor) || factor < 1 || factor > MOST_WIDENING) {
    throw invalid(`the factor must be an integer from 1 to ${MOST_WIDENING}, got ${factor}`);
  }
  if (resolve(out) === resolve(directory)) throw invalid('the output must be another directory');
  const { kind, tensors, totalBytes } = await inspect(directory);
  const config = JSON.parse(readFileSync(join(directory, 'config.json'), 'utf8')) as Record<string, unknown>;
  const isModel = kind === 'model';
  const layout = isModel ? targetLayout : drafterLayout(isJoined(tensors.map(({ name }) => name)));
  const widened = config['tie_word_embeddings'] === true ? untied(tensors, factor) : plan(tensors, layout, factor);
  makeEmpty(out);
  copyOthers(directory, out);
  const wide = isModel ? widenedModelConfig(config, factor) : widenedDrafterConfig(config, factor);
  writeTensors(join(out, 'model.safetensors'), widened, factor);
  writeFileSync(join(out, 'config.json'), `${JSON.stringify(wide, undefined, 1)}\n`);
  return { bytes: widened.reduce((sum, { bytes }) => sum + bytes, 0), sourceBytes: totalBytes };
}
