import { expect, it } from 'vitest';

import { at, joinBytes, range } from '../../kit/arrays.js';
import { Random } from '../../kit/random.js';
import { describeLevels, describeOnce } from './levels.js';
import { drafterOps, rowFaults, type RowOp, SHARED_SIZES, sharedOps, targetOps } from './invariance.js';

describeLevels('a row has the same bits in every launch of 1 to 64 rows', (level) => {
  it.each(targetOps)('$name', (op) => {
    expect(rowFaults(op, level)).toEqual([]);
  });
  it.each(sharedOps)('large $name', (op) => {
    expect(rowFaults(op, level, SHARED_SIZES)).toEqual([]);
  });
  it.each(drafterOps)('$name', (op) => {
    expect(rowFaults(op, level)).toEqual([]);
  });
});

describeOnce('control', () => {
  const k = 200;
  const w = new Random(1).floats(k);

  /** A dot product in fp32 whose sum is split into `parts(rows)` runs. */
  const splitMatmul = (parts: (rows: number) => number): RowOp => ({
    name: 'split',
    width: k,
    run: (_level, _threads, x, target) => {
      const count = parts(x.length / k);
      const sums = new Float32Array(count);
      for (const i of range(k)) {
        const part = Math.floor((i * count) / k);
        sums[part] = Math.fround(at(sums, part) + Math.fround(at(w, i) * at(x, target * k + i)));
      }
      return joinBytes(sums.reduce((total, part) => total.fill(Math.fround(at(total, 0) + part)), new Float32Array(1)));
    },
  });

  it('a fixed split of K passes', () => {
    expect(
      rowFaults(
        splitMatmul(() => 4),
        'none',
      ),
    ).toEqual([]);
  });
  it('a split of K that depends on the number of rows is noticed', () => {
    const faults = rowFaults(
      splitMatmul((rows) => (rows <= 8 ? 4 : 1)),
      'none',
    );
    expect(faults.length).toBeGreaterThan(600);
    expect(faults[0]).toBe('row 0 of 9 beside random');
  });
  it('a result that leaks from a neighbour is noticed', () => {
    const leaky: RowOp = {
      name: 'leaky',
      width: 4,
      run: (_level, _threads, x, target) => {
        const masked = x.map((value, i) => (Math.floor(i / 4) === target ? value : value * 0));
        return joinBytes(Float32Array.of(masked.reduce((a, b) => a + b, 0)));
      },
    };
    const faults = rowFaults(leaky, 'none');
    expect(faults).toContain('row 0 of 2 beside NaN');
    expect(faults).toContain('row 63 of 64 beside Inf');
    expect(faults.filter((fault) => fault.endsWith('random'))).toEqual([]);
  });
});
