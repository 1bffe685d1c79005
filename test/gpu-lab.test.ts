/**
 * The lab (bench/lab) without a device: on the CPU, and over the emulator. Its checks pass, and fail where a fault is
 * planted; its measuring commands run to the end; goals are told from files.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { promptIds } from './kit/bundled.js';
import { temporaryDirectory } from './kit/checkpoint.js';

const root = join(import.meta.dirname, '..');
const lab = join(root, 'build/testing/lab');
const folder = temporaryDirectory('lab');

function run(...args: string[]): { code: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(lab, args, { cwd: root, encoding: 'utf8', timeout: 170_000 });
  return { code: status, stdout, stderr };
}

/** Runs a command that writes a file, and reads it. */
function measured(...args: string[]): Record<string, unknown> {
  const file = join(folder, 'measured.json');
  const { code, stdout, stderr } = run(...args, '--json', file);
  expect([code, stderr], stdout).toEqual([0, '']);
  return JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
}

const TINY = ['--model', 'tiny', '--temporary', folder];

describe.skipIf(!existsSync(lab))('the lab', { timeout: 180_000 }, () => {
  it('has a help, and refuses what it does not know', () => {
    const { code, stdout } = run('--help');
    expect(code).toBe(0);
    for (const word of ['lossless', 'parity', 'goals', 'rounds', '--plant', '--sizes']) expect(stdout).toContain(word);
    for (const args of [[], ['fly'], ['floors', 'file'], ['lossless', '--sizes', '0'], ['lossless', '--what', '1']])
      expect(run(...args).code).toBe(64);
    expect(run('lossless', '--device', 'abacus').stderr).toContain('unknown device "abacus"');
    expect(run('lossless', '--model', 'Llama').stderr).toContain('names 2 shapes, not one');
  });

  it('measures the ops of the CPU, each beside what reading memory gives', () => {
    const few = ['--device', 'cpu:base', '--seconds', '0.0001', '--megabytes', '1', ...TINY];
    const { level, kernels } = measured('kernels', ...few);
    const rows = kernels as { kernel: string; rows: number; us: number; bytes: number; dtype: string; readBytesPerSecond: number; peakFlopPerSecond: number }[]; // prettier-ignore
    const names = ['act', 'attention', 'beam', 'cell', 'embed', 'head_top', 'kv_compact', 'logprob', 'mix', 'norm', 'residual', 'rope', 'sample', 'tree']; // prettier-ignore
    expect([level, [...new Set(rows.map(({ kernel }) => kernel))].sort()]).toEqual(['base', names]);
    for (const { us, bytes, rows: count } of rows) expect([us > 0, bytes > 0, count <= 64]).toEqual([true, true, true]);
    const limits = rows.map(({ readBytesPerSecond: read, peakFlopPerSecond: peak }) => [read > 1e8, peak > 1e8]);
    expect(limits).toEqual(limits.map(() => [true, true]));
    const weights = new Set(rows.filter(({ dtype }) => dtype === 'bf16').map(({ kernel }) => kernel));
    expect([...weights].sort()).toEqual(['cell', 'embed', 'head_top', 'mix', 'residual']);
    expect(rows.filter(({ kernel, dtype }) => !weights.has(kernel) && dtype !== 'f32')).toEqual([]);
    expect(run('steps', '--device', 'cpu').stderr).toContain('does not run on the CPU');
    expect(run('kernels', '--device', 'cpu', '--threads', '0').code).toBe(64);
    expect(run('kernels', '--device', 'cpu', '--megabytes', '0').code).toBe(64);
  });

  it('measures weights of each dtype on the CPU, and no others elsewhere', () => {
    const dtypes = ['f32', 'f16', 'q8_0', 'q4_0'];
    const asked = ['--dtypes', 'q8_0', '--drafter-dtypes', dtypes.join()];
    const few = ['--device', 'cpu:base', '--seconds', '0.0001', '--megabytes', '1', '--rows', '1', ...TINY, ...asked];
    const of = (kernel: string): { dtype: string; shape: string; bytes: number }[] => measured('kernels', ...few, '--kernel', kernel)['kernels'] as never; // prettier-ignore
    expect(of('embed').map(({ dtype }) => dtype)).toEqual(['q8_0']);
    expect(of('norm').map(({ dtype }) => dtype)).toEqual(['f32']);
    const heads = of('head_top').filter(({ shape }) => shape === '300 x 64'); // a group of 32 weights: 34 or 18 bytes
    const [x, top] = [4 * 64, 8];
    expect(heads.map(({ dtype }) => dtype)).toEqual(dtypes);
    expect(heads.map(({ bytes }) => bytes - x - top)).toEqual([4 * 64, 2 * 64, 2 * 34, 2 * 18].map((row) => 300 * row));
    expect(run('kernels', '--device', 'cpu', '--dtypes', 'f8', ...TINY).stderr).toContain('unknown dtype "f8"');
    expect(run('once', '--dtypes', 'q8_0', ...TINY).stderr).toContain('weights are bf16 but on the CPU');
  });

  it('has the prompts of the bundled model as its tokenizer cuts them', async () => {
    const lines = readFileSync(join(root, 'bench/lab/prompts.txt'), 'utf8').trim().split('\n');
    expect(lines).toHaveLength(33);
    const ids = await promptIds();
    lines.forEach((line, i) => {
      const own = line.split(' ').map(Number);
      expect(own.length).toBeGreaterThan(10);
      expect(own).toEqual(ids[i]?.slice(0, own.length));
    });
  });

  it('finds the bundled model lossless on the CPU', () => {
    const { lossless } = measured('lossless', '--device', 'cpu', '--sizes', '1,5', '--tokens', '12');
    expect(lossless).toHaveLength(2); // drafters
    for (const result of lossless as Record<string, number>[]) {
      expect(result).toMatchObject({ generations: 12, differingIds: 0, differingKv: 0, differingOther: 0 });
      expect(result['ids']).toBeGreaterThan(50);
      expect(result['tokensPerStep']).toBeGreaterThan(1.5);
    }
  });

  it.each(['cpu', 'cuda:host'])('finds random weights lossless on %s, with drafts accepted and with none', (device) => {
    const { lossless } = measured('lossless', ...TINY, '--device', device, '--sizes', '1,3', '--tokens', '7');
    const same = { generations: 8, differingIds: 0, differingKv: 0, differingOther: 0 };
    expect(lossless).toMatchObject([
      { ...same, drafter: 'knowing', device },
      { ...same, drafter: 'random', device },
    ]);
    const [knowing = 0, random = 0] = (lossless as { tokensPerStep: number }[]).map((each) => each.tokensPerStep);
    expect(knowing).toBeGreaterThan(1.5);
    expect(random).toBeLessThan(1.2);
    expect(readdirSync(folder).filter((name) => name.startsWith('redrafter-lab'))).toEqual([]);
  });

  it.each([
    ['seed', /[1-9]\d* differ; KV of [1-9]/],
    ['kv', / 0 differ; KV of [1-9]\d* differs; .* of 0;/],
  ])('notices a planted %s', (plant, found) => {
    const { code, stdout } = run('lossless', ...TINY, '--device', 'cpu', '--sizes', '9', '--plant', plant);
    expect(code).toBe(1);
    expect(stdout).toMatch(found);
    expect(stdout).toContain('differs: 9 at once, plain, request 13: KV');
  });

  it('fails when no draft was accepted where some should be', () => {
    const bundled = join(root, 'models/ts-declarations');
    const { code, stdout } = run(
      ...['lossless', '--device', 'cpu', '--target', bundled, '--drafter', join(bundled, 'drafter-gru')],
      ...['--sizes', '1', '--tokens', '1'], // nothing is left to draft
    );
    expect(code).toBe(1);
    expect(stdout).toContain('FAILED, too few drafts were accepted');
  });

  it('finds the kernels near the oracle, and other text far from it', () => {
    const right = run('parity', ...TINY, '--tokens', '4');
    expect([right.code, right.stderr], right.stdout).toEqual([0, '']);
    const [, error, bound] = /KV differs by ([\d.]+) \(bound ([\d.]+)\)/.exec(right.stdout) ?? [];
    expect(Number(error)).toBeGreaterThan(0);
    expect(Number(error)).toBeLessThan(Number(bound));
    const planted = run('parity', ...TINY, '--tokens', '4', '--plant', 'token');
    expect(planted.code).toBe(1);
    expect(planted.stdout).toMatch(/KV differs by .*: FAILED/);
  });

  it('runs every kernel over the emulator, and finds rows invariant', () => {
    expect(run('invariance', '--model', 'tiny').stdout).toBe('row invariance: 0 faults\n');
    expect(run('once', '--model', 'tiny').stdout).toMatch(/^every kernel ran: \d+ cases\n$/);
  });

  it('runs whole rounds over the emulator, with as many tokens as asked for', () => {
    const { rounds } = measured('rounds', '--model', 'tiny', '--rows', '1') as { rounds: Record<string, number>[] };
    expect(rounds.map(({ simulated }) => simulated)).toEqual([1, 2, 3, 3.5, 4]);
    for (const { simulated = 0, tokensPerStep = 0, ms, deviceMs } of rounds) {
      expect(Math.abs(tokensPerStep - simulated)).toBeLessThanOrEqual(1 / 3); // three rounds
      expect(ms).toBeGreaterThan(0);
      expect(deviceMs).toBeGreaterThan(0);
    }
  });

  it('measures kernels, steps and draft rounds, over the emulator', () => {
    const { kernels } = measured('drafts', '--model', 'tiny', '--rows', '2') as { kernels: unknown[] };
    expect(kernels).toHaveLength(2); // cells
    for (const command of ['steps', 'kernels']) {
      const found = measured(command, '--model', 'tiny', '--rows', '4') as { kernels: Record<string, unknown>[] };
      expect(found.kernels.length).toBeGreaterThan(0);
      for (const each of found.kernels) expect(each).toMatchObject({ model: 'tiny', rows: 4 });
    }
  });

  /** Files as the lab writes them, with these figures of the 8B shape. */
  function goals(us: Record<number, number>, round: Record<string, number>): { code: number | null; holds: unknown[] } {
    const model = 'Llama-3.1-8B';
    const step = { model, kernel: 'step', shape: '512 context', bytes: 15e9 };
    const steps = Object.entries(us).map(([rows, value]) => ({ ...step, rows: Number(rows), us: value }));
    const files = { steps: { copyBytesPerSecond: 3e12, kernels: steps }, rounds: { rounds: [{ model, ...round }] } };
    for (const [name, file] of Object.entries(files)) writeFileSync(join(folder, name), JSON.stringify(file));
    const json = join(folder, 'goals.json');
    const { code } = run('goals', join(folder, 'steps'), join(folder, 'rounds'), '--json', json);
    const written = JSON.parse(readFileSync(json, 'utf8')) as { goals: { value: number | null; holds: boolean }[] };
    return { code, holds: written.goals.map(({ value, holds }) => (value === null ? null : holds)) };
  }

  it('tells which goals hold, which do not, and which were not measured', () => {
    const good = { requests: 1, simulated: 3, hostUs: 40, eta: 0.9 };
    const us = { 1: 5500, 16: 5600, 32: 5700, 64: 6100 };
    expect(goals(us, good)).toEqual({ code: 0, holds: [true, true, true, true, true, true] });
    expect(goals({ ...us, 1: 6600 }, { ...good, hostUs: 51 })).toEqual({
      code: 3,
      holds: [false, true, true, true, false, true],
    });
    expect(goals({ ...us, 16: 5700, 32: 5900, 64: 6200 }, { ...good, eta: 0.86 })).toEqual({
      code: 3,
      holds: [true, false, false, false, true, false],
    });
    expect(goals({ 1: 5500 }, { ...good, requests: 4 })).toEqual({
      code: 0,
      holds: [true, null, null, null, true, null],
    });
    expect(goals({}, { ...good, model: 0 }).code).toBe(1);
    writeFileSync(join(folder, 'broken'), '{');
    expect(run('goals', join(folder, 'broken')).stderr).toContain('broken');
    expect(run('goals').code).toBe(1);
  });
});
