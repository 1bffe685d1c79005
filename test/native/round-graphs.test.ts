/** Which graphs of rounds are kept, by the shapes that come (native/spec/round_graphs.h). */
import { describe, expect, it } from 'vitest';

import { range } from '../kit/arrays.js';
import { testing } from '../kit/testing.js';

const simt = testing['simt'] as
  { roundGraphs(keys: Int32Array): { captures: number; alive: number }[]; graphsAlive(): number } | undefined;

const [MOST, REMEMBERED] = [64, 256];

/** Graphs made for each of the last shapes, behind earlier ones. */
function madeFor(last: number[], earlier: number[] = []): number[] {
  const seen = simt?.roundGraphs(Int32Array.from([...earlier, ...last])) ?? [];
  for (const { alive } of seen) expect(alive).toBeLessThanOrEqual(MOST);
  const made = seen.map(({ captures }, i) => captures - (seen[i - 1]?.captures ?? 0));
  return made.slice(earlier.length);
}

describe.skipIf(simt === undefined)('graphs of rounds', () => {
  const twice = (keys: number[]): number[] => keys.flatMap((key) => [key, key]);

  it('are made when a shape comes for the second time, once', () => {
    expect(madeFor([1, 2, 1, 1, 2, 2, 1])).toEqual([0, 0, 1, 0, 1, 0, 0]);
  });

  it('give way when there are too many, the one first that was not used for the longest time', () => {
    const full = twice(range(MOST));
    expect(madeFor(range(MOST), full)).toEqual(range(MOST).map(() => 0));
    // 0 was used again, so 1 goes; it is remembered, and made anew at once.
    expect(madeFor([0, 100, 100, 0, 1, 1, 2], full)).toEqual([0, 0, 1, 0, 1, 0, 1]);
  });

  it('are not pushed out by shapes that come once, unless these are very many', () => {
    const graph = [-1, -1];
    expect(madeFor([-1], [...graph, ...range(REMEMBERED - 1)])).toEqual([0]);
    expect(madeFor([-1, -1, -1], [...graph, ...range(REMEMBERED)])).toEqual([0, 1, 0]);
  });

  it('are forgotten with what they belong to', () => {
    const before = simt?.graphsAlive();
    madeFor(twice(range(3 * MOST)));
    expect(simt?.graphsAlive()).toBe(before);
  });
});
