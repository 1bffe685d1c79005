/** Values that must not reach a result they do not belong to. */
import type { Random } from './random.js';

/** What a neighbour in the same launch may hold. */
export const NEIGHBOURS: { name: string; fill(random: Random, count: number): Float32Array }[] = [
  { name: 'random', fill: (random, count) => random.floats(count) },
  { name: 'NaN', fill: (_, count) => new Float32Array(count).fill(NaN) },
  {
    name: 'Inf',
    fill: (random, count) => Float32Array.from({ length: count }, () => random.pick([Infinity, -Infinity])),
  },
  { name: 'huge', fill: (random, count) => random.floats(count, 1e37) },
];

/** Rows of `width` floats: `target` at row `at`, neighbours elsewhere. */
export function surround(target: Float32Array, at: number, rows: number, neighbours: Float32Array): Float32Array {
  const all = neighbours.slice(0, rows * target.length);
  all.set(target, at * target.length);
  return all;
}
