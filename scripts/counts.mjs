// A reporter of vitest that leaves the counts of every project in the file REDRAFTER_TEST_COUNTS.
import { writeFileSync } from 'node:fs';

/** @typedef {{ passed: number, failed: number, skipped: number }} Counts */

export default class CountsReporter {
  /** @param {readonly import('vitest/node').TestModule[]} modules */
  onTestRunEnd(modules) {
    /** @type {Record<string, Counts>} */
    const projects = {};
    for (const module of modules) {
      const counts = (projects[module.project.name] ??= { passed: 0, failed: 0, skipped: 0 });
      let failed = 0;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === 'passed') counts.passed++;
        else if (state === 'failed') failed++;
        else counts.skipped++;
      }
      // A file that fails outside of its tests (on import, in a hook) counts as one failure.
      counts.failed += Math.max(failed, module.state() === 'failed' ? 1 : 0);
    }
    writeFileSync(process.env['REDRAFTER_TEST_COUNTS'] ?? '', JSON.stringify(projects));
  }
}
