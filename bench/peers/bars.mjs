// The goals, and what people read.
import { table } from '../e2e/report.mjs';

/** @typedef {import('./index.mjs').Report} Report */
/** @typedef {import('./index.mjs').Row} Row */
/** @typedef {{ name: string, value: number, goal: string, holds: boolean }} Bar */

/** As fast as the peer, or faster. */
const AT_LEAST = 1;

/** @param {number} value */
const rounded = (value) => Math.round(value * 1000) / 1000;

/** The fastest way of an engine, by its median; 0: it was not measured. @param {readonly Row[]} rows @param {string} engine */
function fastest(rows, engine) {
  const own = rows.flatMap(({ ways }) => ways.filter((way) => way.engine === engine));
  return Math.max(0, ...own.map((way) => way.median));
}

/** @param {string} name @param {readonly Row[]} rows @returns {Bar[]} none where one of both was not measured */
function ratioBar(name, rows) {
  const [ours, peer] = [fastest(rows, 'redrafter'), fastest(rows, 'node-llama-cpp')];
  if (ours === 0 || peer === 0) return [];
  const value = rounded(ours / peer);
  return [{ name, value, goal: `at least ${AT_LEAST}`, holds: value >= AT_LEAST }];
}

/** @param {Pick<Report, 'cases' | 'ids'>} report @returns {Bar[]} */
export function barsOf({ cases, ids }) {
  const exact = ids.filter((one) => one.exact);
  const agreement = exact.map(({ dtype, prompts, same }) => ({
    name: `${dtype}: prompts with the ids of the peer, of ${prompts}`,
    value: same,
    goal: `${prompts}`,
    holds: same === prompts,
  }));
  const rows = cases.flatMap((row) => {
    const at = row.rows > 1 ? ` of ${row.rows}` : '';
    return ratioBar(`${row.dtype} ${row.case}${at}: tokens/s, redrafter over node-llama-cpp`, [row]);
  });
  const overall = [...new Set(cases.map(({ dtype }) => dtype))].flatMap((dtype) => {
    const single = cases.filter((row) => row.dtype === dtype && ['plain', 'lookup', 'draft'].includes(row.case));
    if (single.length < 2) return [];
    return ratioBar(`${dtype}, one sequence: the fastest way of redrafter over the fastest of node-llama-cpp`, single);
  });
  const changed = cases.flatMap(({ ways }) => ways.filter(({ engine }) => engine === 'redrafter'));
  const others = changed.reduce((sum, { otherIds }) => sum + otherIds, 0);
  const steady = {
    name: 'trials of redrafter with other ids than the first',
    value: others,
    goal: '0',
    holds: others === 0,
  };
  return [...agreement, ...rows, ...overall, ...(changed.length > 0 ? [steady] : [])];
}

/** @param {Pick<Report, 'cases'>} report */
export function casesTable({ cases }) {
  const head = ['dtype', 'case', 'at once', 'engine', 'way', 'tok/s', 'min', 'max', 'tok/step', 'MB'];
  const body = cases.flatMap(({ case: name, dtype, rows, ways }) =>
    ways.map((way) => [
      ...[dtype, name, `${rows}`, way.engine, way.way],
      ...[way.median, way.min, way.max].map((value) => value.toFixed(1)),
      ...[way.tokensPerStep.toFixed(2), (way.memoryBytes / 1e6).toFixed(0)],
    ]),
  );
  return table([head, ...body]);
}

/** @param {Pick<Report, 'ids'>} report */
export function idsTable({ ids }) {
  const head = ['dtype', 'same', 'tokens', 'parted at', 'margin of ours', 'of the peer'];
  const body = ids.flatMap(({ dtype, prompts, same, tokens, parted }) => [
    [dtype, `${same} of ${prompts}`, `${tokens}`, '', '', ''],
    ...parted.map((one) => [
      ...['', `prompt ${one.prompt}`, '', `${one.position}`],
      ...[one.redrafterMargin.toFixed(4), one.peerMargin.toFixed(4)],
    ]),
  ]);
  return table([head, ...body]);
}
