// The tables of reports that `redrafter bench --json` or bench/peers has written, as docs/performance.md shows them. With
// `--into GUIDE` they replace those of a peer in that guide.
//
//   node bench/markdown.mjs --help
import { readFileSync, writeFileSync } from 'node:fs';
import process from 'node:process';

import { Command } from 'commander';

import { benchReportOf } from '../dist/bench/peers-report.js';
import { conditions, shownTables } from '../dist/bench/tables.js';

/** @param {readonly string[]} cells */
const row = (cells) => `| ${cells.map((cell) => (cell === '' ? ' ' : cell)).join(' | ')} |\n`;

/** @param {string} file */
function markdownOf(file) {
  const report = benchReportOf(JSON.parse(readFileSync(file, 'utf8')));
  const lines = conditions(report).map(([name, text]) => `${name}: ${text}`);
  const tables = shownTables(report).map(({ title, head, rows, note }) => {
    const line = `|${head.map((_, i) => (i === 0 ? '---' : '--:')).join('|')}|\n`;
    return `\n#### ${title}\n\n${row(head)}${line}${rows.map(row).join('')}${note === undefined ? '' : `\n${note}\n`}`;
  });
  return `[Data](../${file}): ${lines.join('; ')}.\n${tables.join('')}`;
}

const command = new Command('markdown')
  .description('the tables of bench reports, as docs/performance.md shows them')
  .argument('<file...>', 'reports that redrafter bench --json or bench/peers has written')
  .option('--into <guide>', 'replaces the tables of a peer in that guide instead of printing');
const { args: positionals } = command.parse();
const values = /** @type {{ into?: string }} */ (command.opts());
const text = positionals.map(markdownOf).join('\n');
if (values.into === undefined) process.stdout.write(text);
else {
  const guide = readFileSync(values.into, 'utf8');
  const place = /(<!-- beside a peer -->\n)[\s\S]*(<!-- end -->)/;
  if (!place.test(guide)) throw new Error(`${values.into} has no place for the tables of a peer`);
  writeFileSync(
    values.into,
    guide.replace(place, (_, begin, end) => `${begin}\n${text}\n${end}`),
  );
}
