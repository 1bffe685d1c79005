import { defineConfig } from 'vitest/config';

// The tests of the package share one tarball and one installation, made once by their global set-up.
const PACKAGE = 'test/package/*.test.ts';

// Faults planted in kernels: there is nothing in it for the CPU.
const CONTROLS = 'test/native/ops/kernel-controls.test.ts';
// The decode loop and the engine on the kernels, and how the engine ends when they fail.
const ENGINE = [
  'test/lossless/kernels-engine.test.ts',
  'test/lossless/kernels-rounds.test.ts',
  'test/native/engine-faults.test.ts',
];
// On the CPU's levels, and on the kernels.
const BOTH = ['control', 'draft-masks', 'masks'].map((name) => `test/lossless/${name}.test.ts`);
const KERNELS = [
  ...['adjust', 'attention', 'beam', 'drafter', 'invariance', 'kv-ops', 'matmul', 'rows', 'sample', 'tree'].map(
    (name) => `test/native/ops/${name}.test.ts`,
  ),
  CONTROLS,
  ...ENGINE,
  ...BOTH,
];

export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    globalSetup: ['test/kit/temporary.ts'],
    // The runner sets it for its own output; the programs that tests start would colour theirs.
    env: { FORCE_COLOR: '0' },
    projects: [
      {
        extends: true,
        test: { name: 'redrafter', include: ['test/**/*.test.ts'], exclude: [PACKAGE, CONTROLS, ...ENGINE] },
      },
      // The tables of the ops once more, on the CUDA kernels (test/native/ops/levels.ts).
      { extends: true, test: { name: 'kernels', include: KERNELS, env: { REDRAFTER_TEST_LEVELS: 'kernels' } } },
      { extends: true, test: { name: 'package', include: [PACKAGE], globalSetup: ['test/package/setup.ts'] } },
    ],
  },
});
