// Whether both engines write the same, and how near to a tie they were where they part.
import { job } from './cases.mjs';
import { trial } from './trials.mjs';

/** @typedef {import('./cases.mjs').Setting} Setting */
/** @typedef {import('../../lib/bench/peers-report.js').PeersAgreement} Agreement */

/** @param {readonly number[]} a @param {readonly number[]} b @returns {number} -1: they are the same */
export function firstDifference(a, b) {
  for (let i = 0; i < Math.max(a.length, b.length); i++) if (a[i] !== b[i]) return i;
  return -1;
}

/**
 * @param {Setting} setting @param {number} tokens @returns {Promise<Agreement>}
 */
export async function compareIds(setting, tokens) {
  const { files, dtype, factor, prompts } = setting;
  const exact = dtype === 'f32';
  const own = { ...setting, tokens };
  const ours = job(own, { engine: 'redrafter', model: files.target(dtype) });
  const peer = job(own, { engine: 'node-llama-cpp', model: files.gguf(dtype), exact });
  const [a, b] = [await trial(ours), await trial(peer)];
  const parted = prompts.flatMap((prompt, i) => {
    const [own, other] = [a.ids[i] ?? [], b.ids[i] ?? []];
    const position = firstDifference(own, other);
    if (position < 0) return [];
    const upTo = [...prompt, ...own.slice(0, position)];
    return [{ prompt: i, position, redrafter: own[position] ?? -1, peer: other[position] ?? -1, upTo }];
  });
  /** @type {number[][]} */
  let margins = [[], []];
  if (parted.length > 0) {
    const at = { kind: /** @type {const} */ ('margin'), prompts: parted.map(({ upTo }) => upTo) };
    const { contextTokens } = ours;
    margins = [await trial({ ...ours, ...at, contextTokens }), await trial({ ...peer, ...at, contextTokens })].map(
      (result) => result.margins,
    );
  }
  const same = prompts.length - parted.length;
  return {
    dtype,
    factor,
    exact,
    prompts: prompts.length,
    tokens,
    same,
    parted: parted.map(({ prompt, position, redrafter, peer: other }, i) => ({
      ...{ prompt, position, redrafter, peer: other },
      ...{ redrafterMargin: margins[0]?.[i] ?? NaN, peerMargin: margins[1]?.[i] ?? NaN },
    })),
  };
}
