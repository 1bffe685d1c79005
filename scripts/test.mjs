// The test command after set-up: lint, then every test; the last line is the count. With arguments, vitest runs
// with them and lint is left out (npm test -- test/lib/stop.test.ts).
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { run, runTool } from './tools.mjs';

/**
 * @typedef {{ status: string }} Assertion
 * @typedef {{ status: string, assertionResults: Assertion[] }} TestFile
 */

const args = process.argv.slice(2);
const lintFailed = args.length === 0 && !run(process.execPath, ['scripts/lint.mjs']);
const folder = mkdtempSync(join(tmpdir(), 'redrafter-test-'));
const report = join(folder, 'report.json');
const clean = runTool('vitest/vitest.mjs', [
  'run',
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${report}`,
  ...args,
]);

let [passed, failed, skipped] = [0, 0, 0];
try {
  /** @type {unknown} */
  const json = JSON.parse(readFileSync(report, 'utf8'));
  for (const { status, assertionResults } of /** @type {{ testResults: TestFile[] }} */ (json).testResults) {
    const count = (/** @type {string} */ name) => assertionResults.filter((test) => test.status === name).length;
    passed += count('passed');
    // A file that fails outside of its tests (on import, in a hook) counts as one failure.
    failed += Math.max(count('failed'), status === 'failed' ? 1 : 0);
    skipped += assertionResults.length - count('passed') - count('failed');
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
