// The test command after set-up: lint, then every test; counts of every project, and at last those of all. With
// arguments, vitest runs with them and lint is left out (npm test -- test/lib/stop.test.ts).
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { run, runTool } from './tools.mjs';

const args = process.argv.slice(2);
const lintFailed = args.length === 0 && !run(process.execPath, ['scripts/lint.mjs']);
const folder = mkdtempSync(join(tmpdir(), 'redrafter-test-'));
const report = join(folder, 'counts.json');
process.env['REDRAFTER_TEST_COUNTS'] = report;
const clean = runTool('vitest/vitest.mjs', ['run', '--reporter=default', '--reporter=./scripts/counts.mjs', ...args]);

let [passed, failed, skipped] = [0, 0, 0];
try {
  /** @type {unknown} */
  const json = JSON.parse(readFileSync(report, 'utf8'));
  const projects = Object.entries(/** @type {Record<string, import('./counts.mjs').Counts>} */ (json));
  for (const [name, counts] of projects) {
    if (projects.length > 1) {
      console.log(`${name}: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
    }
    passed += counts.passed;
    failed += counts.failed;
    skipped += counts.skipped;
  }
} catch (error) {
  console.error(`no test report: ${String(error)}`);
}
rmSync(folder, { recursive: true, force: true });
if (!clean && failed === 0) failed = 1; // an error outside of any test
if (lintFailed) {
  failed++;
  console.log('lint failed (counted as one failure)');
}
if (skipped > 0) console.log(`${skipped} skipped`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
