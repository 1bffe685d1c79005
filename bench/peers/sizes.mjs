// How large a model is when it is widened and stored in a dtype, before anything is written.
import { inspect } from '../../dist/index.mjs';
import { targetLayout, widenedShape } from '../../dist/widen/layout.js';
import { MOST_WIDENING } from '../../dist/widen/widen.js';
import { tensorBytes } from './gguf/file.mjs';

/** @typedef {import('./gguf/file.mjs').Dtype} Dtype */
/** @typedef {import('../../lib/bench/peers-report.js').PeersPrecision} Precision */

/** @param {readonly number[]} shape */
const elements = (shape) => shape.reduce((all, size) => all * size, 1);

/**
 * @param {readonly { name: string, shape: readonly number[] }[]} tensors @param {number} factor @param {Dtype} dtype of matrices
 * @returns {Precision}
 */
export function sizeOf(tensors, factor, dtype) {
  const shapes = tensors.flatMap(({ name, shape }) => {
    const axes = targetLayout(name);
    return axes === null ? [] : [widenedShape(shape, axes, factor)];
  });
  return {
    dtype,
    factor,
    parameters: shapes.reduce((sum, shape) => sum + elements(shape), 0),
    weightBytes: shapes.reduce(
      (sum, shape) => sum + tensorBytes({ name: 'a matrix', dtype: shape.length > 1 ? dtype : 'f32', shape }),
      0,
    ),
  };
}

/**
 * The least factor that makes so many bytes of weights, or the one that was given.
 * @param {string} model @param {Dtype} dtype @param {{ factor?: number | undefined, weightsGb: number }} wanted
 */
export async function chosenSize(model, dtype, { factor, weightsGb }) {
  const { tensors } = await inspect(model);
  if (factor !== undefined) return sizeOf(tensors, factor, dtype);
  for (let tried = 1; tried <= MOST_WIDENING; tried++) {
    const size = sizeOf(tensors, tried, dtype);
    if (size.weightBytes >= weightsGb * 1e9) return size;
  }
  throw new Error(`${model} cannot be widened to ${weightsGb} GB in ${dtype}: ${MOST_WIDENING} times is the most`);
}
