/** `npm run cuda:report`: what it says of kernels planted here, and that it fails for a hot one that spills. */
import { spawnSync } from 'node:child_process';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { capture, root } from '../../scripts/tools.mjs';
import { temporaryDirectory } from '../kit/checkpoint.js';

const script = join(root, 'scripts/cuda-report.mjs');
const folder = temporaryDirectory('cuda-report');

interface Report {
  counts: 'ptx' | 'sass';
  kernels: Record<string, unknown>[];
}

function report(args: string[], env: NodeJS.ProcessEnv = {}): { code: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...args], {
    encoding: 'utf8',
    // nvcc does not bear being preloaded with a sanitizer.
    env: { ...process.env, LD_PRELOAD: '', ...env },
  });
  return { code: status, stdout, stderr };
}

/** One of each instruction that is counted, and 1000 bytes of shared memory. */
const GOOD = `
#include "base/ptx.cuh"
namespace redrafter {
namespace {
template <typename T, int n>
__global__ void matmul_planted_kernel(const uint16_t* x, float* y) {
  __shared__ __align__(16) uint16_t tile[500];
  const uint4 v = load_stream_16(x);
  copy_async_16(tile + 8 * threadIdx.x, x + n * threadIdx.x);
  copy_async_commit();
  copy_async_wait<0>();
  __syncthreads();
  uint32_t a[4];
  ldmatrix_x4(a, tile + 8 * threadIdx.x);
  float d[4] = {};
  mma_16x8x16<T>(d, a, v.x, v.y);
  y[threadIdx.x] = d[0] + d[1] + d[2] + d[3];
}
}
void run(const uint16_t* x, float* y, Stream& s) {
  launch("planted", matmul_planted_kernel<Bf16, 8>, dim3(1), dim3(32), 0, s, x, y);
  launch("planted", matmul_planted_kernel<Fp16, 4>, dim3(1), dim3(32), 0, s, x, y);
}
}
`;

/** 200 sums at once in the 64 registers that a block of 1024 threads leaves to each. */
const spilling = (name: string): string => `
extern "C" __global__ void __launch_bounds__(1024) ${name}(const float* x, float* y, int n) {
  float sums[200];
#pragma unroll
  for (int i = 0; i < 200; ++i) sums[i] = x[i];
  for (int k = 1; k < n; ++k) {
#pragma unroll
    for (int i = 0; i < 200; ++i) sums[i] = fmaf(sums[i], x[k], sums[(i + 1) % 200]);
  }
#pragma unroll
  for (int i = 0; i < 200; ++i) y[i * 1024 + threadIdx.x] = sums[i];
}
`;

function plant(name: string, source: string): string {
  const path = join(folder, `${name}.cu`);
  writeFileSync(path, source);
  return path;
}

describe('cuda:report', () => {
  it('has help, and refuses what it does not know', () => {
    const help = report(['--help']);
    expect([help.code, help.stderr]).toEqual([0, '']);
    for (const option of ['--arch', '--kernel', '--tsv', '--json']) expect(help.stdout).toContain(option);
    expect(report(['--speed']).code).toBe(2);
    expect(report(['--arch', 'hopper']).code).toBe(2);
    expect(report(['--kernel', '(']).code).toBe(2);
    const { code, stderr } = report([], { PATH: folder });
    expect([code, stderr]).toEqual([1, 'cuda:report: there is no nvcc in PATH\n']);
  });

  it('compiles with the flags of the build', () => {
    const cmake = readFileSync(join(root, 'cmake/cuda.cmake'), 'utf8');
    const own = /FLAGS = \[(.*)\]/.exec(readFileSync(script, 'utf8'))?.[1] ?? '';
    const flags = [...own.matchAll(/'([^']+)'/g)].map(([, flag = '']) => flag);
    expect(flags.length).toBeGreaterThan(3);
    for (const flag of flags) expect(cmake).toContain(flag);
  });
});

describe.skipIf(capture('nvcc', ['--version']) === undefined)('cuda:report, with nvcc', () => {
  const good = plant('good', GOOD);
  const withoutSass = { PATH: (process.env.PATH ?? '').split(delimiter).filter((path) => capture(join(path, 'cuobjdump'), ['--version']) === undefined).join(delimiter) }; // prettier-ignore

  it('counts what a kernel takes and has', () => {
    const { code, stdout, stderr } = report(['--arch', '90a,80', '--json', good], withoutSass);
    expect([code, stderr]).toEqual([0, '']);
    const { counts, kernels } = JSON.parse(stdout) as Report;
    expect(counts).toBe('ptx');
    const common = { file: 'good.cu', hot: true, shared: 1000, stack: 0, spillStores: 0, spillLoads: 0 };
    const instructions = { mma: 1, ld16: 1, async: 1, ldsm: 1, registers: expect.any(Number) as number };
    const rows = ['sm_90a', 'sm_80'].flatMap((arch) =>
      ['matmul_planted_kernel<Bf16, 8>', 'matmul_planted_kernel<Fp16, 4>'].map((kernel) => ({ kernel, arch })),
    );
    expect(kernels).toHaveLength(4);
    expect(kernels).toEqual(expect.arrayContaining(rows.map((row) => ({ ...row, ...common, ...instructions }))));
  });

  it('prints a table, for people and for programs', () => {
    const table = report(['--arch', '80', '--kernel', 'Bf16', good], withoutSass).stdout.trim().split('\n');
    expect(table[0]).toMatch(/^kernel +arch +reg +shared +stack +st +ld +mma +ld16 +async +ldsm$/);
    expect(table[1]).toMatch(/^matmul_planted_kernel<Bf16, 8> +sm_80 +\d+ +1000( +0){3}( +1){4}$/);
    expect(table.slice(2)).toEqual(['1 kernels; instructions as counted in PTX']);
    const tabs = report(['--arch', '80', '--kernel', 'Bf16', '--tsv', good], withoutSass).stdout.trim().split('\n');
    expect(tabs.map((line) => line.split('\t').length)).toEqual([11, 11]);
  });

  it('fails for a hot kernel that spills, and tells of another', () => {
    const hot = report(['--arch', '80', plant('hot', spilling('matmul_spilling_kernel'))]);
    expect(hot.code).toBe(1);
    expect(hot.stderr).toMatch(
      /^cuda:report: matmul_spilling_kernel on sm_80 is hot and has [1-9]\d* bytes of stack, /,
    );
    const { code, stdout } = report(['--arch', '80', '--json', plant('cold', spilling('some_spilling_kernel'))]);
    expect(code).toBe(0);
    const [row] = (JSON.parse(stdout) as Report).kernels;
    expect(row).toMatchObject({ kernel: 'some_spilling_kernel', hot: false });
    expect(Number(row?.['spillStores'])).toBeGreaterThan(0);
  });

  it('fails for what does not compile, with what the compiler says', () => {
    const { code, stderr } = report(['--arch', '80', plant('wrong', 'int f() { return x; }')]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/wrong\.cu does not compile for sm_80\n.*identifier "x" is undefined/);
  });

  it.skipIf(process.platform === 'win32')('counts in SASS where cuobjdump is', () => {
    const sass = `
		Function : matmul_spilling_kernel
        /*0000*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0010*/                   LDG.E.64 R4, desc[UR4][R2.64] ;
        /*0020*/                   LDGSTS.E.BYPASS.128 [R3], desc[UR4][R4.64] ;
        /*0030*/                   LDSM.16.M88.4 R4, [R3] ;
        /*0040*/                   LDSM.16.MT88.4 R8, [R3] ;
        /*0050*/              @!P0 HMMA.16816.F32.BF16 R8, R4, R2, R8 ;`;
    const tool = join(temporaryDirectory('cuobjdump'), 'cuobjdump');
    writeFileSync(tool, `#!/bin/sh\ncat <<'END'\n${sass}\nEND\n`);
    chmodSync(tool, 0o755);
    const PATH = [join(tool, '..'), process.env.PATH].join(delimiter);
    const { stdout } = report(['--arch', '80', '--json', join(folder, 'hot.cu')], { PATH });
    const { counts, kernels } = JSON.parse(stdout) as Report;
    expect(counts).toBe('sass');
    expect(kernels).toMatchObject([{ ld16: 1, async: 1, ldsm: 2, mma: 1 }]);
  });
});
