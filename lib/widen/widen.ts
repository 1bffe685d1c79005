/** Writes wider models and drafters that compute what the small ones do. */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { type TensorToWrite, writeCheckpoint } from '../checkpoint-files.js';
import { invalid } from '../errors.js';
import { inspect, type TensorInfo } from '../system.js';
import { drafterLayout, isJoined, targetLayout, widenedDrafterConfig, widenedModelConfig, widenedShape, type Axis, type Layout } from './layout.js'; // prettier-ignore
import type { TensorReader } from './reader.js';
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

/** The tensors of the widened model, to be written. */
function written(reader: TensorReader, widened: readonly Widened[], factor: number): TensorToWrite[] {
  return widened.map(({ name, source, axes, shape, bytes }) => {
    const rows = source.shape.length > 1 ? (source.shape[0] ?? 0) : 1;
    const rowBytes = rows === 0 ? 0 : source.bytes / rows;
    const columns = source.shape[source.shape.length - 1] ?? 1;
    const read = (first: number, count: number): Uint8Array => reader.slice(source, first * rowBytes, count * rowBytes);
    const both = [axes.length > 1 ? (axes[0] ?? SAME_AXIS) : SAME_AXIS, axes[axes.length - 1] ?? SAME_AXIS] as const;
    const pieces = (): Iterable<Uint8Array> => widenRows({ dtype: source.dtype, rows, columns, read }, both, factor);
    return { name, dtype: source.dtype, shape, bytes, pieces };
  });
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
  const wide = isModel ? widenedModelConfig(config, factor) : widenedDrafterConfig(config, factor);
  writeCheckpoint(directory, out, wide, (reader) => written(reader, widened, factor));
  return { bytes: widened.reduce((sum, { bytes }) => sum + bytes, 0), sourceBytes: totalBytes };
}
