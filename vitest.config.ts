import { defineConfig } from 'vitest/config';

// The tests of the package share one tarball and one installation, made once by their global set-up.
const PACKAGE = 'test/package/*.test.ts';

export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    globalSetup: ['test/kit/temporary.ts'],
    projects: [
      { extends: true, test: { name: 'redrafter', include: ['test/**/*.test.ts'], exclude: [PACKAGE] } },
      { extends: true, test: { name: 'package', include: [PACKAGE], globalSetup: ['test/package/setup.ts'] } },
    ],
  },
});
