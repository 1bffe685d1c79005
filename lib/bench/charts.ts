/** The charts of a report as SVG, drawn by ECharts, whose one file is copied into dist/vendor when dist is built. */
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { packageRoot } from '../package-root.js';
import { fastest, type PeersCase, type PeersReport, type PeersWay, precisionName } from './peers-report.js';
import type { Report } from './report.js';
import type { E2eSuite } from './suites/e2e.js';
import type { OpsSuite } from './suites/ops.js';
import type { DrafterShapes } from './suites/shapes.js';
import type { StudyPoint } from './suites/study.js';

/** What is used of the library. */
interface ChartLibrary {
  init(
    element: null,
    theme: null,
    options: { renderer: 'svg'; ssr: true; width: number; height: number },
  ): { setOption(option: object): void; renderToSVGString(): string; dispose(): void };
}

export interface Chart {
  /** The suite it belongs to. */
  suite: string;
  title: string;
  svg: string;
}

/** Colours that people who confuse red and green can tell apart (Okabe and Ito). */
const COLOURS = ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#999999'];

function draw(option: object, width = 520, height = 340): string {
  const library = createRequire(__filename)(join(packageRoot, 'dist/vendor/echarts.js')) as ChartLibrary;
  const chart = library.init(null, null, { renderer: 'svg', ssr: true, width, height });
  try {
    chart.setOption({ animation: false, color: COLOURS, textStyle: { fontFamily: 'sans-serif' }, ...option });
    return chart.renderToSVGString();
  } finally {
    chart.dispose();
  }
}

const axis = (name: string, more: object = {}): object => ({
  type: 'value',
  name,
  nameLocation: 'middle',
  nameGap: 30,
  ...more,
});
const GRID = { left: 70, right: 30, top: 50, bottom: 50 };
const LEGEND = { top: 0 };
const rounded = (value: number, digits = 2): number => Number(value.toFixed(digits));

function e2eChart({ rows }: E2eSuite): Chart {
  const sets = [...new Set(rows.map(({ set }) => set))];
  const nameOf = ({ drafter, way }: { drafter: string | null; way: string }): string =>
    drafter === null ? way : `${way}\n${drafter}`;
  const ways = [...new Set(rows.map(nameOf))];
  const series = sets.map((set) => ({
    name: set,
    type: 'bar',
    data: ways.map((way) => {
      const row = rows.find((one) => one.set === set && nameOf(one) === way);
      return row === undefined ? null : rounded(row.tokensPerSecond.median, 1);
    }),
  }));
  const option = {
    legend: LEGEND,
    grid: { ...GRID, bottom: 60 },
    xAxis: { type: 'category', data: ways, axisLabel: { interval: 0, fontSize: 10 } },
    yAxis: axis('tokens/s', { nameGap: 50 }),
    series,
  };
  return { suite: 'e2e', title: 'Tokens per second', svg: draw(option, Math.max(520, 90 * ways.length)) };
}

/** Speedup over beam width and length; the optimum has a frame. */
function heatMap({ drafter, cells, optimum }: DrafterShapes): Chart {
  const sorted = (of: (cell: DrafterShapes['cells'][number]) => number): string[] =>
    [...new Set(cells.map(of))].sort((a, b) => a - b).map(String);
  const [lengths, widths] = [sorted(({ beamLength }) => beamLength), sorted(({ beamWidth }) => beamWidth)];
  const speeds = cells.map(({ speedup }) => speedup.median);
  const data = cells.map(({ beamWidth, beamLength, speedup }) => {
    const isBest = optimum?.beamWidth === beamWidth && optimum.beamLength === beamLength;
    return {
      value: [lengths.indexOf(String(beamLength)), widths.indexOf(String(beamWidth)), rounded(speedup.median)],
      itemStyle: isBest ? { borderColor: '#000', borderWidth: 3 } : { borderColor: '#fff', borderWidth: 1 },
      label: {
        show: true,
        formatter: speedup.median.toFixed(2),
        color: '#000',
        fontWeight: isBest ? 'bold' : 'normal',
      },
    };
  });
  const option = {
    grid: { ...GRID, right: 110 },
    xAxis: { ...axis('beam length, tokens'), type: 'category', data: lengths },
    yAxis: { ...axis('beam width'), type: 'category', data: widths },
    visualMap: {
      ...{ min: rounded(Math.min(1, ...speeds)), max: rounded(Math.max(1, ...speeds)), precision: 2 },
      ...{ calculable: false, orient: 'vertical', right: 5, top: 'middle', text: ['speedup', ''] },
      inRange: { color: ['#f7fbff', '#9ecae1', '#4292c6'] },
    },
    series: [{ type: 'heatmap', data }],
  };
  return { suite: 'shapes', title: `${drafter}: speedup over plain decoding`, svg: draw(option) };
}

function costCharts({ drafter, verifyCosts, draftCosts }: DrafterShapes): Chart[] {
  const verify = {
    grid: GRID,
    xAxis: axis('rows of a pass', { min: 0 }),
    yAxis: axis('x a plain step', { min: 0 }),
    series: [
      {
        type: 'scatter',
        data: verifyCosts.map(({ rows, ofPlain }) => [rounded(rows), rounded(ofPlain)]),
        markLine: { symbol: 'none', label: { show: false }, data: [{ yAxis: 1 }] },
      },
    ],
  };
  const draft = {
    grid: GRID,
    xAxis: axis('beam width', { min: 0 }),
    yAxis: axis('% of a plain step', { min: 0 }),
    series: [
      { type: 'line', data: draftCosts.map(({ beamWidth, ofPlain }) => [beamWidth, rounded(100 * ofPlain, 1)]) },
    ],
  };
  return [
    { suite: 'shapes', title: `${drafter}: a verification pass by its rows`, svg: draw(verify) },
    { suite: 'shapes', title: `${drafter}: a step of drafting by beam width`, svg: draw(draft) },
  ];
}

/** Measured points among the lines of equal speedup that the model has. */
function studyCharts(points: readonly StudyPoint[]): Chart[] {
  const ways = [...new Set(points.map(({ drafter, temperature }) => `${drafter}, T ${temperature}`))];
  const most = { cost: Math.max(0.1, ...points.map((p) => p.draftCost)) * 1.1, tokens: Math.ceil(Math.max(2, ...points.map((p) => p.tokensPerStep))) }; // prettier-ignore
  const levels = [1, 1.5, 2, 2.5, 3, 4, 5, 6].filter((speedup) => speedup < most.tokens);
  const lines = levels.map((speedup) => ({
    type: 'line',
    symbol: 'none',
    silent: true,
    lineStyle: { color: '#bbb', type: 'dashed', width: 1 },
    endLabel: { show: true, formatter: `${speedup} x`, color: '#777' },
    data: [
      [0, speedup],
      [rounded(most.cost, 3), rounded(speedup * (1 + most.cost), 3)],
    ],
  }));
  const series = (value: (point: StudyPoint) => number[], label: boolean): object[] =>
    ways.map((name) => ({
      name,
      type: 'scatter',
      symbolSize: 9,
      label: { show: label, position: 'right', fontSize: 9, formatter: '{@2}' },
      data: points.filter(({ drafter, temperature }) => `${drafter}, T ${temperature}` === name).map(value),
    }));
  const byCost = {
    legend: { ...LEGEND, data: ways },
    grid: { ...GRID, right: 60 },
    xAxis: axis('draft cost / target cost', { min: 0, max: rounded(most.cost, 2) }),
    yAxis: axis('tokens per step', { min: 1, max: most.tokens }),
    series: [...lines, ...series((p) => [rounded(p.draftCost, 3), rounded(p.tokensPerStep), rounded(p.speedup.median)], true)], // prettier-ignore
  };
  const top = Math.ceil(Math.max(...points.flatMap((p) => [p.predicted, p.speedup.high])));
  const diagonal = {
    type: 'line',
    symbol: 'none',
    silent: true,
    lineStyle: { color: '#bbb', type: 'dashed' },
    data: [
      [0, 0],
      [top, top],
    ],
  };
  const compared = (predicted: (point: StudyPoint) => number): string =>
    draw({
      legend: { ...LEGEND, data: ways },
      grid: GRID,
      xAxis: axis('predicted speedup', { min: 0, max: top }),
      yAxis: axis('measured speedup', { min: 0, max: top }),
      series: [diagonal, ...series((p) => [rounded(predicted(p)), rounded(p.speedup.median)], false)],
    });
  return [
    { suite: 'study', title: 'Tokens per step and draft cost, with the measured speedup; dashed: what the model predicts', svg: draw(byCost, 720, 460) }, // prettier-ignore
    { suite: 'study', title: 'Measured against tokens per step / (1 + draft cost)', svg: compared((p) => p.predicted) },
    { suite: 'study', title: 'Measured against the same with the verify cost that was measured', svg: compared((p) => p.predictedWithVerify) }, // prettier-ignore
  ];
}

function opsChart({ rows: all }: OpsSuite): Chart {
  const rows = all.filter(({ kernel }) => kernel === 'matmul');
  const ways = [...new Set(rows.map(({ kernel, level, dtype }) => `${kernel} ${level} ${dtype}`))];
  const option = {
    legend: LEGEND,
    grid: GRID,
    xAxis: { ...axis('rows'), type: 'log', logBase: 2 },
    yAxis: axis('% of what the machine allows', { min: 0, nameGap: 40 }),
    series: ways.map((name) => ({
      name,
      type: 'line',
      data: rows
        .filter(({ kernel, level, dtype }) => `${kernel} ${level} ${dtype}` === name)
        .map((row) => [row.rows, rounded(100 * row.ofLimit, 1)]),
    })),
  };
  return { suite: 'ops', title: 'Matrix products: share of the nearer limit, by rows', svg: draw(option) };
}

/** Bars of both engines side by side; of a way that was tried with several numbers of threads, the fastest. */
function peersChart(title: string, of: readonly { name: string; among: PeersCase; way: string | null }[]): Chart {
  const without = (way: string): string => way.replace(/, threads: \d+$/, '');
  const best = ({ among, way }: (typeof of)[number], engine: PeersWay['engine']): number | null => {
    const own = fastest(among, engine, (one) => way === null || without(one.way) === way);
    return own === undefined ? null : rounded(own.median, 1);
  };
  const engines = ['redrafter', 'node-llama-cpp'] as const;
  const option = {
    legend: LEGEND,
    grid: GRID,
    xAxis: { type: 'category', data: of.map(({ name }) => name), axisLabel: { interval: 0, fontSize: 10 } },
    yAxis: axis('tokens/s', { nameGap: 50, min: 0 }),
    series: engines.map((engine) => ({
      name: engine,
      type: 'bar',
      label: { show: true, position: 'top', fontSize: 9 },
      data: of.map((one) => best(one, engine)),
    })),
  };
  return { suite: 'peers', title, svg: draw(option, Math.max(520, 90 * of.length)) };
}

function peersCharts(report: PeersReport): Chart[] {
  const all = (name: PeersCase['case']): PeersCase[] => report.cases.filter((one) => one.case === name);
  const decode = all('decode').map((among) => {
    const ways = [...new Set(among.ways.map(({ way }) => way.replace(/, threads: \d+$/, '')))];
    const title = `${precisionName(report, among.dtype)}: tokens per second of one sequence`;
    return peersChart(title, ways.map((way) => ({ name: way, among, way }))); // prettier-ignore
  });
  const { prefillTokens } = report.settings;
  const prefill = all('prefill').map((among) => ({ name: precisionName(report, among.dtype), among, way: null }));
  const dtypes = [...new Set(all('batch').map(({ dtype }) => dtype))];
  const batch = dtypes.map((dtype) => {
    const own = all('batch').filter((one) => one.dtype === dtype);
    const title = `${precisionName(report, dtype)}: tokens per second of several sequences at once`;
    return peersChart(title, own.map((among) => ({ name: String(among.rows), among, way: null }))); // prettier-ignore
  });
  const reading = `Tokens per second of reading a prompt of ${prefillTokens} tokens`;
  return [...decode, ...(prefill.length > 0 ? [peersChart(reading, prefill)] : []), ...batch];
}

/** The charts of every suite that ran. */
export function chartsOf({ suites }: Report): Chart[] {
  const { e2e, shapes, study, ops, peers } = suites;
  return [
    ...(e2e === undefined ? [] : [e2eChart(e2e)]),
    ...(shapes?.drafters.flatMap((one) => [heatMap(one), ...costCharts(one)]) ?? []),
    ...(study === undefined ? [] : studyCharts(study.points)),
    ...(ops === undefined || 'notAvailable' in ops ? [] : [opsChart(ops)]),
    ...(peers === undefined || 'notAvailable' in peers ? [] : peersCharts(peers.report)),
  ];
}
