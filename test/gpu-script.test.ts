/** bench/gpu/run.sh as far as it goes without a device: it says what it skips and why, and refuses what it does not know. */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { temporaryDirectory } from './kit/checkpoint.js';

const script = join(import.meta.dirname, '../bench/gpu/run.sh');

/** Runs the script where nvidia-smi and nvcc do what these lines of shell do. */
function run(args: string[], nvidiaSmi: string, nvcc = 'exit 0'): { code: number | null; stdout: string; out: string } {
  const bin = temporaryDirectory('gpu-script');
  for (const [name, body] of Object.entries({ 'nvidia-smi': nvidiaSmi, nvcc })) {
    writeFileSync(join(bin, name), `#!/bin/sh\n${body}\n`);
    chmodSync(join(bin, name), 0o755);
  }
  const out = join(bin, 'out');
  const { status, stdout } = spawnSync('bash', [script, '--out', out, ...args], {
    encoding: 'utf8',
    env: { ...process.env, PATH: `${bin}${delimiter}${process.env['PATH'] ?? ''}` },
  });
  return { code: status, stdout, out };
}

describe.skipIf(process.platform !== 'linux')('bench/gpu/run.sh', () => {
  it('skips every phase where there is no device, and says why', () => {
    const { code, stdout, out } = run([], 'exit 9');
    expect(code).toBe(2);
    for (const phase of ['invariance', 'memcheck', 'racecheck', 'parity', 'kernels', 'rounds']) {
      expect(stdout).toContain(`skipped  ${phase}: nvidia-smi finds no device`);
    }
    expect(stdout).not.toContain('passed');
    expect(existsSync(out)).toBe(false);
  });

  it('fails when the lab cannot be built, and runs no phase without it', () => {
    const { code, stdout } = run(['--phases', 'invariance,kernels'], 'echo 9.0', 'echo no >&2; exit 1');
    expect(code).toBe(1);
    expect(stdout).toMatch(/failed {3}build, see .*build\.log/);
    expect(stdout).toContain('skipped  invariance: the lab was not built');
    expect(stdout).toContain('skipped  kernels: the lab was not built');
  });

  it('has a help and refuses phases and options that it does not know', () => {
    expect(run(['--help'], 'exit 9').code).toBe(0);
    expect(run(['--phases', 'kernels,none'], 'exit 9').code).toBe(64);
    expect(run(['--what'], 'exit 9').code).toBe(64);
  });
});
