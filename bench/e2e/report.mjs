// What people read: a table whose columns tabs separate, and the bars that a run must clear.

import { below, equal } from '../../dist/bench/bars.js';

export { below, equal };

/** @typedef {import('../../lib/bench/bars.js').Bar} Bar */
/** @typedef {{ load: string, perSecond: number, drafting: string } & import('./cell.mjs').Figures} Row */

/** Goals, with why. */
export const GOALS = {
  /** What else the process answers must not wait for the library. The timer that measures it has a period of 1 ms. */
  eventLoopDelayMs: 5,
  /** What collector and allocator may keep beyond the warm-up. A leak of 1 KiB per request is twice that in the 8,000 after it. */
  memoryGrowthBytes: 4 * 2 ** 20,
};

/** Padded, so that it can be read, and separated by tabs, so that it can be cut. @param {readonly (readonly string[])[]} rows */
export function table(rows) {
  /** @type {number[]} */
  const widths = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  return rows.map((row) => row.map((cell, i) => cell.padStart(widths[i] ?? 0)).join('\t') + '\n').join('');
}

/** @param {{ p50: number, p95: number, p99: number }} values @param {number} digits */
const three = ({ p50, p95, p99 }, digits) => [p50, p95, p99].map((value) => value.toFixed(digits));

/** @param {readonly Row[]} rows */
export function loadTable(rows) {
  const ofThree = (/** @type {string} */ name) => [50, 95, 99].map((p) => `${name} p${p}`);
  const head = [
    ...['load', 'req/s in', 'drafting', 'done', 'refused', 'tok/s', 'req/s'],
    ...[...ofThree('ttft ms'), ...ofThree('ms/tok'), ...ofThree('queue ms')],
    ...['loop p99 ms', 'batches/s', 'msgs/s', 'tok/step'],
  ];
  const body = rows.map((row) => [
    ...[row.load, row.perSecond.toFixed(1), row.drafting, `${row.done}`, `${row.refused}`],
    ...[row.tokensPerSecond.toFixed(0), row.requestsPerSecond.toFixed(1)],
    ...[...three(row.timeToFirstTokenMs, 1), ...three(row.timePerTokenMs, 2), ...three(row.queuedMs, 1)],
    ...[row.eventLoopDelayMs.p99.toFixed(2), row.batchesPerSecond.toFixed(0), row.messagesPerSecond.toFixed(0)],
    row.tokensPerStep.toFixed(2),
  ]);
  return table([head, ...body]);
}

/** @param {readonly Bar[]} bars */
export function barTable(bars) {
  const rows = bars.map(({ name, value, goal, holds }) => [name, `${value}`, goal, holds ? 'yes' : 'NO']);
  return table([['bar', 'value', 'goal', 'holds'], ...rows]);
}
