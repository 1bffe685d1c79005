// A run in slices: what one measured joins what others did before.
import { isDeepStrictEqual } from 'node:util';

/** @typedef {import('../../lib/bench/peers-report.js').PeersReport} Report */

/** What must be the same, or the figures cannot stand side by side. */
const SAME = /** @type {const} */ ([
  'schema',
  'commit',
  'device',
  'threads',
  'peerThreads',
  'model',
  'versions',
  'settings',
]);

/**
 * @param {unknown} before a report that was written @param {Report} fresh
 * @returns {Report} the fresh one, and of the other what was not measured again
 */
export function merged(before, fresh) {
  const old = /** @type {Report} */ (before);
  for (const key of SAME) {
    if (!isDeepStrictEqual(old[key], fresh[key]))
      throw new Error(`cannot merge: the report was made with another ${key}`);
  }
  for (const { dtype, factor } of fresh.precisions) {
    const known = old.precisions.find((one) => one.dtype === dtype);
    if (known !== undefined && known.factor !== factor)
      throw new Error(`cannot merge: in the report, ${dtype} was widened ${known.factor} times, not ${factor}`);
  }
  /** @template T @param {readonly T[]} kept @param {readonly T[]} added @param {(one: T) => string} key */
  const join = (kept, added, key) => {
    const again = new Set(added.map(key));
    return [...kept.filter((one) => !again.has(key(one))), ...added];
  };
  return {
    ...fresh,
    machine: { ...fresh.machine, load: Math.max(old.machine.load, fresh.machine.load) },
    engines: { ...old.engines, ...fresh.engines },
    missing: [...new Set([...old.missing, ...fresh.missing])],
    precisions: join(old.precisions, fresh.precisions, ({ dtype }) => dtype),
    costs: join(old.costs, fresh.costs, ({ dtype, rows }) => `${dtype} ${rows}`),
    cases: join(old.cases, fresh.cases, ({ case: name, dtype, rows }) => `${name} ${dtype} ${rows}`),
    ids: join(old.ids, fresh.ids, ({ dtype }) => dtype),
  };
}
