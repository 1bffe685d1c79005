/** bench/ops: runs with tiny settings, and what it writes adds up. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { bundled } from '../kit/bundled.js';
import { temporaryDirectory } from '../kit/checkpoint.js';

const bench = join(import.meta.dirname, '../../build/testing/bench-ops');
const file = join(temporaryDirectory('bench-ops'), 'measured.json');

interface Entry {
  level: string;
  dtype: string;
  rows: number;
  ms: number;
  op?: string;
  calls?: number;
  bytesPerS: number;
  weightBytes: number;
}

function run(...args: string[]): number | null {
  return spawnSync(bench, [...args, '--seconds', '0.001', '--json', file], { timeout: 50_000 }).status;
}
const entries = (): Entry[] => (JSON.parse(readFileSync(file, 'utf8')) as { passes: Entry[] }).passes;

describe.skipIf(!existsSync(bench))('bench-ops', () => {
  it('times passes of all levels and dtypes', () => {
    const shape = ['--hidden', '48', '--ffn', '80', '--megabytes', '1', '--threads', '2'];
    expect(run(...shape, '--rows', '1,13', '--dtypes', 'f32,f16,bf16')).toBe(0);
    const levels = new Set(entries().map(({ level }) => level));
    expect(levels).toContain('base');
    expect(entries()).toHaveLength(levels.size * 3 * 2);
    for (const { bytesPerS, weightBytes, ms } of entries()) {
      expect(weightBytes).toBeGreaterThanOrEqual(1e6);
      expect(bytesPerS / (weightBytes / (ms / 1e3))).toBeCloseTo(1, 1);
    }
  });
  it('times the ops of a pass of a model', () => {
    expect(run('--model', bundled, '--rows', '2', '--dtypes', 'auto', '--levels', 'base', '--context', '20')).toBe(0);
    const [pass, ...ops] = entries();
    expect(ops.map(({ op, calls }) => [op, calls]).sort()).toEqual(
      [['act', 8], ['attention', 8], ['embed', 1], ['matmul', 33], ['norm', 17], ['rope', 8]], // prettier-ignore
    );
    expect(ops.reduce((sum, { ms }) => sum + ms, 0)).toBeLessThanOrEqual((pass?.ms ?? 0) + 1e-3);
  });
  it('refuses what it does not know', () => {
    expect(run('--rows', '0')).toBe(64);
    expect(run('--what', '1')).toBe(64);
    expect(run('--levels', 'abacus')).toBe(1);
    expect(run('--dtypes', 'f8')).toBe(1);
  });
});
