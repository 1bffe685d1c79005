/** The tables of a report. */
import type { Bar } from './bars.js';
import { percent, spread, type Table } from './cells.js';
import { peersTables } from './peers-tables.js';
import type { EngineUsed, NotAvailable, Report } from './report.js';
import type { E2eSuite } from './suites/e2e.js';
import type { OpsSuite } from './suites/ops.js';
import type { DrafterShapes } from './suites/shapes.js';
import type { StudySuite } from './suites/study.js';

export type { Table };

const giga = (value: number): string => (value / 1e9).toFixed(1);

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`;

/** The lines of what ran where. */
export function conditions(report: Report): [string, string][] {
  const { version, commit, date, machine, engine, model, settings, readBytesPerSecond } = report;
  const engineText = ({ device, level, dtype, threads }: EngineUsed): string =>
    `${device} ${level}, ${dtype}, ${threads} ${threads === 1 ? 'thread' : 'threads'}`;
  return [
    ['redrafter', `${version}${commit === null ? '' : `, commit ${commit}`}, ${date}`],
    ['machine', `${machine.cpu}, ${machine.cores} hardware threads, load ${machine.load.toFixed(1)} before, ${machine.platform}, Node.js ${machine.node}`], // prettier-ignore
    ...(engine === null ? [] : [['engine', engineText(engine)] as [string, string]]),
    ...(model === null ? [] : [['model', `${model.name}, ${megabytes(model.weightBytes)} of weights; drafters ${model.drafters.join(', ')}`] as [string, string]]), // prettier-ignore
    ...(readBytesPerSecond === null ? [] : [['memory', `${giga(readBytesPerSecond)} GB/s read`] as [string, string]]),
    ...(engine === null ? [] : [['settings', `${settings.prompts} prompts, ${settings.tokens} tokens each, ${settings.turns} ${settings.turns === 1 ? 'turn' : 'turns'}`] as [string, string]]), // prettier-ignore
    ...(settings.quick ? [['quick', 'these figures say nothing about speed'] as [string, string]] : []),
  ];
}

function e2eTables({ rows, compared, differing }: E2eSuite, { model, readBytesPerSecond }: Report): Table[] {
  const sets = [...new Set(rows.map(({ set }) => set))];
  const ofBandwidth = (way: string, rate: number): string => {
    if (way !== 'plain' || model === null || readBytesPerSecond === null) return '';
    return percent((rate * model.stepBytes) / readBytesPerSecond);
  };
  return sets.map((set) => ({
    title: set === 'all' ? 'End to end, all prompts' : `End to end, ${set}`,
    head: ['drafter', 'way', 'tokens/s', 'speedup', 'tokens/step', 'eta', 'of read bandwidth'],
    rows: rows
      .filter((row) => row.set === set)
      .map((row) => [
        row.drafter ?? '-',
        row.way,
        spread(row.tokensPerSecond, 1),
        spread(row.speedup, 2),
        row.tokensPerStep.toFixed(2),
        row.eta.toFixed(2),
        ofBandwidth(row.way, row.tokensPerSecond.median),
      ]),
    ...(set === 'all' ? { note: `${compared} continuations compared with plain decoding, ${differing} with other ids.` } : {}), // prettier-ignore
  }));
}

function shapesTables({ drafter, plain, cells, optimum, draftCosts }: DrafterShapes): Table[] {
  const isBest = (width: number, length: number): boolean =>
    optimum?.beamWidth === width && optimum.beamLength === length;
  const widths = [...new Set(cells.map(({ beamWidth }) => beamWidth))].sort((a, b) => a - b);
  const lengths = [...new Set(cells.map(({ beamLength }) => beamLength))].sort((a, b) => a - b);
  const cellAt = (width: number, length: number): string => {
    const cell = cells.find(({ beamWidth, beamLength }) => beamWidth === width && beamLength === length);
    return cell === undefined ? '' : `${cell.speedup.median.toFixed(2)}${isBest(width, length) ? ' *' : ''}`;
  };
  const found = optimum === null ? 'No shape was faster than plain decoding.' : `*: the optimum, ${optimum.beamWidth} x ${optimum.beamLength}.`; // prettier-ignore
  return [
    {
      title: `${drafter}: speedup by beam width (rows) and length (columns)`,
      head: ['width', ...lengths.map(String)],
      rows: widths.map((width) => [String(width), ...lengths.map((length) => cellAt(width, length))]),
      note: `${found} Plain decoding: ${plain.tokensPerSecond.toFixed(1)} tokens/s.`,
    },
    {
      title: `${drafter}: rounds by shape`,
      head: ['shape', 'tokens/s', 'speedup', 'tokens/step', 'eta', 'rows', 'verify ms', 'of plain', 'draft ms', 'host ms'], // prettier-ignore
      rows: cells.map((cell) => [
        `${cell.beamWidth}x${cell.beamLength}`,
        spread(cell.tokensPerSecond, 1),
        spread(cell.speedup, 2),
        cell.tokensPerStep.toFixed(2),
        cell.eta.toFixed(2),
        cell.rows.toFixed(1),
        cell.verifyMs.toFixed(2),
        (cell.verifyMs / plain.verifyMs).toFixed(2),
        cell.draftMs.toFixed(2),
        cell.hostMs.toFixed(2),
      ]),
    },
    {
      title: `${drafter}: a step of drafting by beam width`,
      head: ['width', 'ms', 'of a plain step'],
      rows: draftCosts.map(({ beamWidth, ms, ofPlain }) => [String(beamWidth), ms.toFixed(3), percent(ofPlain)]),
      note: `A plain step of the target takes ${plain.verifyMs.toFixed(2)} ms.`,
    },
  ];
}

function studyTable({ points }: StudySuite): Table {
  return {
    title: 'Speed by cost and acceptance',
    head: ['drafter', 'T', 'shape', 'tokens/s', 'tokens/step', 'draft cost', 'verify cost', 'predicted', 'with verify cost', 'measured', 'eta'], // prettier-ignore
    rows: points.map((point) => [
      point.drafter,
      String(point.temperature),
      `${point.beamWidth}x${point.beamLength}`,
      point.tokensPerSecond.median.toFixed(1),
      point.tokensPerStep.toFixed(2),
      point.draftCost.toFixed(3),
      point.verifyCost.toFixed(2),
      point.predicted.toFixed(2),
      point.predictedWithVerify.toFixed(2),
      spread(point.speedup, 2),
      point.eta.toFixed(2),
    ]),
    note: 'Costs are multiples of a plain step. Predicted: tokens per step / (1 + draft cost).',
  };
}

/** What memory and multiply-adds gave beside the rows of each dtype, from the least to the greatest. */
function opsLimits(rows: OpsSuite['rows']): string {
  const limits = (of: readonly number[]): string =>
    [...new Set([Math.min(...of), Math.max(...of)].map(giga))].join(' to ');
  const wayOf = ({ level, dtype, threads }: (typeof rows)[number]): string => `${level} ${dtype}, ${threads} threads`;
  const notes = [...new Set(rows.map(wayOf))].map((way) => {
    const of = rows.filter((row) => wayOf(row) === way);
    return `${way}: read ${limits(of.map((row) => row.readBytesPerSecond))} GB/s, peak ${limits(of.map((row) => row.peakFlopPerSecond))} GFLOP/s.`; // prettier-ignore
  });
  return notes.join(' ');
}

function opsTable({ rows }: OpsSuite): Table {
  return {
    title: 'Kernels',
    head: ['kernel', 'shape', 'level', 'dtype', 'rows', 'us', 'GB/s', 'of read', 'GFLOP/s', 'of peak', 'of limit', 'cost'], // prettier-ignore
    rows: rows.map((row) => [
      ...[row.kernel, row.shape, row.level, row.dtype, String(row.rows), (1000 * row.ms).toFixed(2)],
      ...[giga(row.bytesPerSecond), percent(row.ofBandwidth), giga(row.flopPerSecond), percent(row.ofPeak)],
      ...[percent(row.ofLimit), row.cost.toFixed(2)],
    ]),
    note: opsLimits(rows),
  };
}

function notAvailable(title: string, { notAvailable: why }: NotAvailable): Table {
  return { title, head: [], rows: [], note: `Not available: ${why}.` };
}

export function barTable(bars: readonly Bar[]): Table {
  return {
    title: 'Bars',
    head: ['bar', 'value', 'goal', 'holds', 'missed by'],
    rows: bars.map(({ name, value, goal, holds, missedBy }) => [
      ...[name, String(value), goal, holds ? 'yes' : 'NO'],
      missedBy === 0 ? '' : String(missedBy ?? '-'),
    ]),
  };
}

/** The tables of each suite that ran. */
export function suiteTables(report: Report): { suite: string; tables: Table[] }[] {
  const { e2e, shapes, study, ops, peers } = report.suites;
  const all: { suite: string; tables: Table[] }[] = [];
  if (e2e !== undefined) all.push({ suite: 'e2e', tables: e2eTables(e2e, report) });
  if (shapes !== undefined) all.push({ suite: 'shapes', tables: shapes.drafters.flatMap(shapesTables) });
  if (study !== undefined) all.push({ suite: 'study', tables: [studyTable(study)] });
  if (ops !== undefined) all.push({ suite: 'ops', tables: ['notAvailable' in ops ? notAvailable('Kernels', ops) : opsTable(ops)] }); // prettier-ignore
  if (peers !== undefined) all.push({ suite: 'peers', tables: 'notAvailable' in peers ? [notAvailable('Peers', peers)] : peersTables(peers) }); // prettier-ignore
  return all;
}

/** What docs/performance.md shows of a report: all tables, and the bars beside a peer. */
export function shownTables(report: Report): Table[] {
  const tables = suiteTables(report).flatMap((suite) => suite.tables);
  return report.suites.peers === undefined ? tables : [...tables, barTable(report.bars)];
}
