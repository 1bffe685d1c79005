import type { Report } from '../bench/report.js';
import { barTable, conditions, suiteTables, type Table } from '../bench/tables.js';
import { paint, table } from './output.js';

function textOf({ title, head, rows, note }: Table): string {
  const body = head.length === 0 ? '' : table([head, ...rows]);
  return `\n${paint.bold(title)}\n${body}${note === undefined || note === '' ? '' : `${note}\n`}`;
}

/** A report for people to read on a terminal. */
export function benchText(report: Report): string {
  const tables = suiteTables(report).flatMap((suite) => suite.tables);
  const bars = report.bars.length === 0 ? [] : [barTable(report.bars)];
  const lines = conditions(report).map(([name, text]) => `${name.padEnd(10)} ${text}\n`);
  return lines.join('') + [...tables, ...bars].map(textOf).join('');
}
