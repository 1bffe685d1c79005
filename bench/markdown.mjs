// The tables of reports that `redrafter bench --json` has written, as docs/performance.md shows them.
//
//   node bench/markdown.mjs FILE...
import { readFileSync } from 'node:fs';
import process from 'node:process';

import { conditions, suiteTables } from '../dist/bench/tables.js';

/** @param {readonly string[]} cells */
const row = (cells) => `| ${cells.map((cell) => (cell === '' ? ' ' : cell)).join(' | ')} |\n`;

for (const file of process.argv.slice(2)) {
  /** @type {unknown} */
  const parsed = JSON.parse(readFileSync(file, 'utf8'));
  const report = /** @type {import('../lib/bench/report.js').Report} */ (parsed);
  const lines = conditions(report).map(([name, text]) => `${name}: ${text}`);
  process.stdout.write(`[Data](../${file}): ${lines.join('; ')}.\n`);
  for (const { title, head, rows, note } of suiteTables(report).flatMap(({ tables }) => tables)) {
    const line = `|${head.map((_, i) => (i === 0 ? '---' : '--:')).join('|')}|\n`;
    process.stdout.write(`\n### ${title}\n\n${row(head)}${line}${rows.map(row).join('')}${note === undefined ? '' : `\n${note}\n`}`); // prettier-ignore
  }
}
