/**
 * bench/gpu/run.sh as far as it goes without a device: what it skips and why, phases that fail and that take too long, and
 * phases of the real lab over the emulator. And what runs beside it: the pack, Node.js, PyTorch.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { temporaryDirectory } from './kit/checkpoint.js';

const root = join(import.meta.dirname, '..');
const script = join(root, 'bench/gpu/run.sh');
const lab = join(root, 'build/testing/lab');

interface Summary {
  date: string;
  commit: string;
  machine: string;
  device: string;
  driver: string;
  phases: { phase: string; result: 'passed' | 'failed' | 'skipped'; why: string; seconds: number }[];
}

interface Run {
  code: number | null;
  stdout: string;
  stderr: string;
  out: string;
  /** Of the phases, by name: `passed`, or the result and why. */
  phases: Record<string, string>;
  summary: Summary | undefined;
}

const SMI = 'case $* in *compute_cap*) echo 9.0 ;; *driver*) echo 580.1 ;; *) echo "A device" ;; esac';

/** Runs the script where programs of these names do what these lines of shell do. */
function run(args: string[], programs: Record<string, string> = {}): Run {
  const bin = temporaryDirectory('gpu-script');
  for (const [name, body] of Object.entries({ 'nvidia-smi': 'exit 9', ...programs })) {
    writeFileSync(join(bin, name), `#!/bin/sh\n${body}\n`);
    chmodSync(join(bin, name), 0o755);
  }
  const out = join(bin, 'out');
  const { status, stdout, stderr } = spawnSync(
    'bash',
    [script, '--out', out, ...args.map((arg) => arg.replace('BIN', bin))],
    {
      encoding: 'utf8',
      env: { ...process.env, PATH: `${bin}${delimiter}${process.env['PATH'] ?? ''}`, CXX: 'false' },
    },
  );
  const file = join(out, 'summary.json');
  const summary = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Summary) : undefined;
  const phases = (summary?.phases ?? []).map(({ phase, result, why }) => [
    phase,
    [result, why].filter(Boolean).join(': '),
  ]);
  return { code: status, stdout, stderr, out, summary, phases: Object.fromEntries(phases) as Record<string, string> };
}

const LAB_PHASES = 'invariance,parity,lossless,bandwidth,steps,drafts,rounds,goals,kernels';
const ON_DEVICE = [
  ...['invariance', 'parity', 'lossless', 'bandwidth', 'steps', 'drafts', 'rounds', 'kernels'],
  ...['memcheck', 'racecheck', 'initcheck', 'synccheck', 'node', 'peer', 'tables'],
];

describe.skipIf(process.platform !== 'linux')('bench/gpu/run.sh', { timeout: 120_000 }, () => {
  it('has a help and a list, and refuses phases and options that it does not know', () => {
    expect(run(['--help']).stdout).toContain('--phases LIST');
    const list = run(['--list']).stdout;
    for (const phase of ['build', 'floors', 'goals', ...ON_DEVICE]) expect(list).toMatch(new RegExp(`^${phase} `, 'm'));
    for (const args of [['--phases', 'kernels,none'], ['--what'], ['--minutes', 'soon']])
      expect(run(args).code).toBe(64);
  });

  it('says why each phase is skipped where there is no device, and writes that down', () => {
    const { code, stdout, phases, summary } = run(['--lab', 'BIN/lab'], { lab: 'echo "$@"' });
    expect(code).toBe(2);
    expect(phases).toEqual({
      floors: 'passed',
      goals: 'skipped: nothing was measured',
      ...Object.fromEntries(ON_DEVICE.map((phase) => [phase, 'skipped: nvidia-smi finds no device'])),
    });
    for (const phase of ON_DEVICE) expect(stdout).toMatch(new RegExp(`skipped +${phase} .*nvidia-smi finds no device`));
    expect(summary).toMatchObject({ device: '', driver: '' });
    expect(summary?.date).toMatch(/^20\d\d-\d\d-\d\dT/);
    expect(summary?.machine).toContain('Linux');
  });

  it('fails when the lab cannot be built, and runs no phase without it', () => {
    const { code, phases } = run(['--phases', 'floors,invariance', '--arch', 'sm_00'], {
      nvcc: 'exit 1',
      'nvidia-smi': SMI,
    });
    rmSync(join(root, 'build/lab/objects-sm_00'), { recursive: true, force: true });
    expect(code).toBe(1);
    expect(phases).toEqual({
      build: 'failed: exit code 1, see build.log',
      floors: 'skipped: the lab was not built',
      invariance: 'skipped: the lab was not built',
    });
  });

  it('goes on after a phase that fails and one that takes too long', () => {
    const body = 'case $1 in steps) echo no; exit 1 ;; goals) sleep 60 ;; rounds) touch "$5" ;; esac';
    const phases = 'steps,rounds,goals,invariance';
    const found = run(['--quick', '--phases', phases, '--lab', 'BIN/lab'], { lab: body, 'nvidia-smi': SMI });
    expect(found.code).toBe(1);
    expect(found.phases).toEqual({
      invariance: 'passed',
      steps: 'failed: exit code 1, see steps.log',
      rounds: 'passed',
      goals: 'failed: took longer than 5 s, see goals.log',
    });
    expect(readFileSync(join(found.out, 'steps.log'), 'utf8')).toBe('no\n');
    expect(found.summary).toMatchObject({ device: 'A device', driver: '580.1' });
  });

  it('skips what would start too late', () => {
    const found = run(['--phases', 'invariance', '--minutes', '0', '--lab', 'BIN/lab'], { lab: '', 'nvidia-smi': SMI });
    expect(found.phases).toEqual({ invariance: 'skipped: no time left of 0 minutes (--minutes)' });
    expect(found.code).toBe(2);
  });

  it.skipIf(!existsSync(lab))('runs the phases of the lab, here over the emulator', () => {
    const engines = 'case $1 in lossless | parity) set -- "$@" --device cpu ;; esac';
    const tiny = `${engines}; exec ${lab} "$@" --model tiny --sizes 1,5 --tokens 10 --rows 1`;
    const found = run(
      ['--phases', `floors,${LAB_PHASES},memcheck`, '--lab', 'BIN/lab'],
      // A sanitizer that runs what it is given.
      { lab: tiny, 'nvidia-smi': SMI, 'compute-sanitizer': 'shift 4; exec "$@"' },
    );
    expect(found.phases, found.stdout).toEqual({
      floors: 'passed',
      ...Object.fromEntries(LAB_PHASES.split(',').map((phase) => [phase, 'passed'])),
      goals: 'failed: exit code 1, see goals.log', // there are no goals for this shape
      memcheck: 'passed',
    });
    const files = ['parity', 'lossless', 'lossless-1B', 'bandwidth', 'steps', 'drafts', 'rounds', 'kernels'];
    for (const file of files) {
      const read: unknown = JSON.parse(readFileSync(join(found.out, `${file}.json`), 'utf8'));
      expect(Object.keys(read as object).length, file).toBeGreaterThan(0);
    }
    expect(readFileSync(join(found.out, 'lossless-planted.log'), 'utf8')).toContain('differs: ');
  });

  it('fails when a planted fault is not noticed', () => {
    const found = run(['--phases', 'lossless', '--lab', 'BIN/lab'], { lab: 'exit 0', 'nvidia-smi': SMI });
    expect(found.code).toBe(1);
    expect(readFileSync(join(found.out, 'lossless.log'), 'utf8')).toBe('a planted fault was not noticed\n');
  });
});

const ninja = join(root, 'build/build.ninja');

describe.skipIf(process.platform !== 'linux')('beside it', { timeout: 180_000 }, () => {
  it.skipIf(!existsSync(ninja))(
    'build.sh compiles what the build compiles, for the same levels with the same flags',
    () => {
      const folder = temporaryDirectory('gpu-build');
      const log = join(folder, 'log');
      // Compilers that write down what they are asked for, and make empty files.
      const body = `#!/bin/sh\necho "$@" >> '${log}'\nwhile [ $# -gt 1 ]; do [ "$1" = -o ] && : > "$2"; shift; done\n`;
      for (const name of ['nvcc', 'compiler']) {
        writeFileSync(join(folder, name), body);
        chmodSync(join(folder, name), 0o755);
      }
      const args = ['bench/lab/build.sh', 'sm_90a', join(folder, 'lab'), '--library', join(folder, 'library.so')];
      const env = {
        ...{ ...process.env, CXX: join(folder, 'compiler') },
        PATH: `${folder}${delimiter}${process.env['PATH'] ?? ''}`,
      };
      const { status, stderr } = spawnSync('bash', args, { cwd: root, encoding: 'utf8', env });
      expect(status, stderr).toBe(0);
      const levelOf = (flags: string): string => /REDRAFTER_ISA_(\w+)/.exec(flags)?.[1] ?? '';
      const machineOf = (flags: string): string => [...flags.matchAll(/ -m\S+/g)].map(([flag]) => flag.trim()).sort().join(' '); // prettier-ignore
      const compiled = readFileSync(log, 'utf8')
        .split('\n')
        .map((line) => ({ line, source: / -c (native\S+\.(?:cc|cu)) /.exec(line)?.[1] ?? '' }))
        .filter(({ source }) => source !== '')
        .map(({ line, source }) => [source, levelOf(line), machineOf(line)].join(' '));
      // Of the addon: its levels, the ops and the core. What it links beside them is the kernels.
      const blocks = readFileSync(ninja, 'utf8').split(/\n(?=build )/);
      const built = blocks.flatMap((block) => {
        const [, source] =
          /^build CMakeFiles\/redrafter_(?:\w+_isa|ops|core)\.dir\/(native\S+\.cc)\.o:/.exec(block) ?? [];
        const flags = (/\n {2}DEFINES = .*/.exec(block)?.[0] ?? '') + (/\n {2}FLAGS = .*/.exec(block)?.[0] ?? '');
        return source === undefined ? [] : [[source, levelOf(flags), machineOf(flags)].join(' ')];
      });
      expect(built.length).toBeGreaterThan(60);
      expect(compiled.filter((each) => !each.includes('.cu ')).sort()).toEqual(built.sort());
      const kernels = readdirSync(join(root, 'native/ops')).filter((name) => name.endsWith('.cu'));
      for (const name of kernels) expect(compiled).toContain(`native/ops/${name}  `);
    },
  );

  const device = (cwd: string, ...args: string[]): { code: number | null; stdout: string } => {
    const always = ['--device', 'cpu', '--seconds', '0', '--tokens', '8', '--limit-ms', '10000'];
    const { status, stdout } = spawnSync(process.execPath, ['bench/gpu/device.mjs', ...always, ...args], {
      cwd,
      encoding: 'utf8',
    });
    return { code: status, stdout };
  };

  it('device.mjs finds the bundled model lossless through the public API, here on the CPU', () => {
    const json = join(temporaryDirectory('gpu-device'), 'node.json');
    const { code, stdout } = device(root, '--json', json);
    expect(code, stdout).toBe(0);
    expect(JSON.parse(readFileSync(json, 'utf8'))).toMatchObject({
      device: 'cpu',
      lossless: { differing: 0, ids: 3 * 8 * (1 + 2 + 5 + 16 + 33) },
      idleDelayMs: { p99: expect.any(Number) as number },
    });
    const { decoded } = JSON.parse(readFileSync(json, 'utf8')) as { decoded: Record<string, unknown>[] };
    expect(decoded.map(({ requests, mode }) => `${String(requests)} ${String(mode)}`)).toEqual(
      [1, 8].flatMap((requests) => ['plain', 'fixed', 'adaptive'].map((mode) => `${requests} ${mode}`)),
    );
    for (const { tokensPerSecond } of decoded) expect(tokensPerSecond).toBeGreaterThan(0);
    const planted = device(root, '--plant');
    expect(planted.code).toBe(1);
    expect(planted.stdout).toMatch(/FAILED: \d+ ids differ/);
  });

  it('pack.sh packs all that is needed there, in under 60 MiB with Node.js', () => {
    const folder = temporaryDirectory('gpu-pack');
    const tar = join(folder, 'pack.tar');
    const node = join(folder, 'node');
    writeFileSync(node, 'not really'); // Node.js itself takes a minute to compress, to 22 MiB
    const packed = spawnSync('bash', ['bench/gpu/pack.sh', '--out', tar, '--node', node], {
      cwd: root,
      encoding: 'utf8',
    });
    expect(packed.status, packed.stderr).toBe(0);
    expect(statSync(tar).size).toBeLessThan((60 - 23) << 20);
    expect(spawnSync('tar', ['xf', tar, '-C', folder]).status).toBe(0);
    const there = join(folder, 'redrafter');
    for (const file of [
      'bench/gpu/run.sh',
      'bench/gpu/node.xz',
      'bench/gpu/COMMIT',
      'bench/lab/build.sh',
      'CMakeLists.txt',
    ])
      expect(existsSync(join(there, file)), file).toBe(true);
    const { code, stdout } = device(there);
    expect(code, stdout).toBe(0);
    const list = spawnSync('bash', [join(there, 'bench/gpu/run.sh'), '--list'], { encoding: 'utf8' });
    expect(list.status).toBe(0);
  });

  const python = process.env['PYTHON'] ?? 'python3';
  const torch = spawnSync(python, ['-c', 'import torch']).status === 0;
  it.skipIf(!torch)('peer_torch.py decodes a tiny model where PyTorch is', () => {
    const folder = temporaryDirectory('gpu-peer');
    const [rounds, json] = [join(folder, 'rounds.json'), join(folder, 'peer.json')];
    writeFileSync(rounds, JSON.stringify({ rounds: [{ model: 'tiny', requests: 4, simulated: 1, ms: 2.5 }] }));
    const args = ['bench/gpu/peer_torch.py', '--model', 'tiny', '--batches', '1,4', '--steps', '3'];
    const { status, stderr } = spawnSync(python, [...args, '--rounds', rounds, '--json', json], {
      cwd: root,
      encoding: 'utf8',
    });
    expect(status, stderr).toBe(0);
    const { steps } = JSON.parse(readFileSync(json, 'utf8')) as { steps: { ms: number }[] };
    expect(steps).toMatchObject([
      { requests: 1, oursMs: null },
      { requests: 4, oursMs: 2.5 },
    ]);
    for (const { ms } of steps) expect(ms).toBeGreaterThan(0);
  });
});
