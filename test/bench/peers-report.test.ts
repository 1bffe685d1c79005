/** The report of bench/peers: its bars, tables and charts, and how slices become one. */
import { describe, expect, it } from 'vitest';

import { barsOf } from '../../bench/peers/bars.mjs';
import { firstDifference } from '../../bench/peers/ids.mjs';
import { merged } from '../../bench/peers/merge.mjs';
import { htmlReport } from '../../lib/bench/html.js';
import { asBenchReport, benchReportOf, type OwnFigures, type PeersCase, type PeersReport, type PeersWay } from '../../lib/bench/peers-report.js'; // prettier-ignore
import { median } from '../../lib/bench/statistics.js';
import { benchText } from '../../lib/cli/bench-text.js';

const figures = (
  engine: PeersWay['engine'],
  way: string,
  rates: number[],
  change: Partial<PeersWay> = {},
): PeersWay => ({
  ...{ engine, way, tokensPerSecond: rates, median: median(rates), min: Math.min(...rates), max: Math.max(...rates) },
  ...{ tokensPerStep: 1, memoryBytes: 1e9, otherIds: 0, own: null },
  ...change,
});
const own = (change: Partial<OwnFigures>): OwnFigures => ({
  ...{ verifyMs: [50, 50], draftMs: [0, 0], hostMs: [0.1, 0.1], draftTokens: [0, 0], verifyRows: [1, 1] },
  bytes: { weights: 1.04e9, drafter: 0.1e9, kv: 0.05e9, workspace: 0.01e9, step: 1e9 },
  ...change,
});

/** 20 tokens a second plainly, 46 drafted; the second turn at half the speed. The peer: 19, 22 with lookup, 30 with a twin. */
const decode: PeersCase = {
  ...{ case: 'decode', dtype: 'bf16', rows: 1, readBytesPerSecond: [22e9, 11e9] },
  ways: [
    figures('redrafter', 'plain', [20, 10], { own: { ...own({}), bytes: { ...own({}).bytes, drafter: 0 } }, memoryBytes: 1.15e9 }), // prettier-ignore
    figures('redrafter', 'drafting', [46, 23], { own: own({ draftMs: [6, 6], verifyMs: [55, 55], draftTokens: [3, 3], verifyRows: [4, 4] }), tokensPerStep: 3, memoryBytes: 1.3e9 }), // prettier-ignore
    figures('node-llama-cpp', 'plain', [16, 8]),
    figures('node-llama-cpp', 'plain, threads: 1', [19, 9.5]),
    figures('node-llama-cpp', 'lookup', [22, 11]),
    figures('node-llama-cpp', 'draft twin, threads: 1', [30, 15]),
  ],
  drafted: { compared: 4, differing: 0 },
  agreeing: { prompts: 4, same: 3 },
};
const prefill: PeersCase = {
  ...{ case: 'prefill', dtype: 'bf16', rows: 1, readBytesPerSecond: [] },
  ways: [figures('redrafter', 'plain', [200, 210]), figures('node-llama-cpp', 'plain', [100, 100])],
  ...{ drafted: { compared: 0, differing: 0 }, agreeing: { prompts: 1, same: 1 } },
};
const same = (value: number): { median: number; low: number; high: number } => ({ median: value, low: value, high: value }); // prettier-ignore
const costs = [1, 4, 8, 16].map((rows) => ({ dtype: 'bf16', rows, ms: same(50 + rows), cost: same((50 + rows) / 51) }));
const precision = { dtype: 'bf16', factor: 9, parameters: 5.2e8, weightBytes: 1.04e9 };

function reportOf(change: Partial<PeersReport>): PeersReport {
  return {
    schema: 1,
    date: '2026-01-01',
    commit: 'abc',
    versions: { redrafter: '0', nodeLlamaCpp: '0', llamaCpp: '0' },
    machine: { cpu: 'x', cores: 2, memoryBytes: 1, platform: 'linux-x64', node: 'v20', load: 0.5 },
    device: 'cpu',
    threads: 2,
    peerThreads: [2, 1],
    model: { name: 'm', drafter: null },
    settings: { quick: false, prompts: 4, tokens: 64, idsTokens: 256, turns: 2, prefillTokens: 512 },
    engines: { redrafter: { level: 'avx2' } },
    tokenizer: { pre: 'same', texts: 1 },
    missing: [],
    precisions: [precision],
    cases: [],
    costs: [],
    ids: [],
    bars: [],
    ...change,
  };
}

describe('bars', () => {
  const whole = reportOf({ cases: [decode, prefill], costs });
  const bar = (change: Partial<PeersReport>, name: string) =>
    barsOf({ ...whole, ...change }).find((one) => one.name.includes(name));
  const slower = (share: number, ...ways: string[]): Partial<PeersReport> => ({
    cases: [{ ...decode, ways: decode.ways.map((way) => ways.includes(way.way) ? { ...way, tokensPerSecond: way.tokensPerSecond.map((rate) => rate * share) } : way) }, prefill], // prettier-ignore
  });

  it('name the dtype and what it was widened by, and are these', () => {
    expect(barsOf(whole).map(({ name, value, goal, holds }) => [name, value, goal, holds])).toEqual([
      ['bf16, widened 9 times: plain decoding, of the read bandwidth', 0.909, 'at least 0.9', true],
      ["bf16, widened 9 times: plain decoding over the peer's", 1.053, 'at least 1', true],
      ['bf16, widened 9 times: drafted decoding over plain decoding', 2.3, 'at least 2.2', true],
      ['bf16, widened 9 times: drafted decoding over the peer with any predictor (draft twin, threads: 1)', 1.533, 'at least 2', false], // prettier-ignore
      ['bf16, widened 9 times: drafted decoding over the peer without the twin as draft (lookup)', 2.091, 'at least 2', true], // prettier-ignore
      ['bf16, widened 9 times: eta, speedup over tokens per step', 0.767, 'at least 0.7', true],
      ['bf16, widened 9 times: drafting of a round over a plain step', 0.12, 'at most 0.15', true],
      ['bf16, widened 9 times: continuations that drafting changed, of 4', 0, '0', true],
      ['bf16, widened 9 times: resident memory over weights and KV', 1.092, 'at most 1.1', true],
      ['bf16, widened 9 times: 4 rows of the target over one row', 1.059, 'at most 1.1', true],
      ['bf16, widened 9 times: 8 rows of the target over one row', 1.137, 'at most 1.4', true],
      ['bf16, widened 9 times: 16 rows of the target over one row', 1.294, 'at most 2.2', true],
      ['bf16, widened 9 times: reading 512 tokens over the peer', 2.05, 'at least 1', true],
      ['trials of redrafter with other ids than the first', 0, '0', true],
    ]);
  });

  it.each([
    ['of the read bandwidth', slower(0.9, 'plain'), 0.082],
    ["over the peer's", slower(0.9, 'plain'), 0.053],
    ['drafted decoding over plain', slower(0.9, 'drafting'), 0.13],
    ['without the twin', slower(0.9, 'drafting'), 0.118],
    ['eta', slower(0.9, 'drafting'), 0.01],
    ['any predictor', {}, 0.467],
  ])('%s: missed in a slower run, and by how much (negative control)', (name, change, missedBy) => {
    expect(bar(change, name)).toMatchObject({ holds: false, missedBy });
  });

  it('notice dear rows, dear drafts, memory and other ids (negative control)', () => {
    expect(bar({ costs: costs.map((one) => ({ ...one, cost: same(2.3) })) }, '16 rows')).toMatchObject({ value: 2.3, holds: false, missedBy: 0.1 }); // prettier-ignore
    const changed = (way: string, change: Partial<PeersWay>, row: Partial<PeersCase> = {}): Partial<PeersReport> => ({
      cases: [{ ...decode, ...row, ways: decode.ways.map((one) => (one.way === way ? { ...one, ...change } : one)) }],
    });
    expect(bar(changed('drafting', { own: own({ draftMs: [8, 8] }) }), 'drafting of a round')).toMatchObject({ value: 0.16, missedBy: 0.01 }); // prettier-ignore
    expect(bar(changed('plain', { memoryBytes: 1.5e9 }), 'resident')).toMatchObject({ value: 1.376, holds: false });
    expect(bar(changed('plain', { otherIds: 1 }), 'trials')).toMatchObject({ value: 1, holds: false });
    expect(bar(changed('plain', {}, { drafted: { compared: 4, differing: 1 } }), 'drafting changed')).toMatchObject({ value: 1, holds: false }); // prettier-ignore
  });

  it('are none where one engine was not measured', () => {
    const alone = { ...decode, ways: decode.ways.filter(({ engine }) => engine === 'node-llama-cpp') };
    expect(barsOf(reportOf({ cases: [alone] }))).toEqual([]);
    const names = barsOf(reportOf({ cases: [{ ...decode, ways: decode.ways.slice(0, 2) }] })).map(({ name }) => name);
    expect(names.filter((name) => name.includes('peer'))).toEqual([]);
    expect(names).toHaveLength(7);
  });

  it('ask for equal ids only where the precision is the same', () => {
    const parted = [{ prompt: 1, position: 9, redrafter: 3, peer: 4, redrafterMargin: 0.01, peerMargin: 0.02 }];
    const ids = { factor: 2, prompts: 2, tokens: 64, same: 1, parted };
    const both = [{ dtype: 'f32', exact: true, ...ids }, { dtype: 'bf16', exact: false, ...ids }]; // prettier-ignore
    expect(barsOf(reportOf({ ids: both }))).toMatchObject([{ name: 'f32: prompts with the ids of the peer', value: 1, goal: '2', holds: false }]); // prettier-ignore
    expect([firstDifference([1, 2], [1, 2]), firstDifference([1, 2], [1, 3]), firstDifference([1], [1, 3])]).toEqual([-1, 1, 1]); // prettier-ignore
  });
});

describe('a report', () => {
  const ids = [{ dtype: 'q8_0', factor: 2, exact: false, prompts: 4, tokens: 64, same: 3, parted: [{ prompt: 1, position: 9, redrafter: 3, peer: 4, redrafterMargin: 0.01, peerMargin: 0.02 }] }]; // prettier-ignore
  const bare = reportOf({ cases: [decode, prefill], costs, ids, missing: ['this, because of that'] });
  const whole = { ...bare, bars: barsOf(bare) };

  it('is shown as the tables of a benchmark', () => {
    const text = benchText(asBenchReport(whole));
    expect(text).toMatch(/^bf16 +decode +1 +redrafter +drafting +34.5 \(23.0-46.0\) +3.00 +1300$/m);
    expect(text).toMatch(/^bf16 +drafting +2.30 +3.00 +0.77 +55.00 +1.10 +4.0 +6.00 +12 % +3.0 +0.10/m);
    expect(text).toMatch(/^bf16 +plain +1.00 .* 91 %/m);
    expect(text).toMatch(/^bf16 +16 +66.00 +1.29$/m);
    expect(text).toMatch(/^bf16 +9 times +520 M +1.04 GB$/m);
    expect(text).toMatch(/prompt 2 +9 +0.0100 +0.0200$/m);
    expect(text).toMatch(/any predictor \(draft twin, threads: 1\) +1.533 +at least 2 +NO +0.467$/m);
    expect(text).toContain('Not measured: this, because of that.');
    expect(text).toContain('memory     16.5 GB/s read');
  });

  it('has a chart of both engines for each dtype, and one of reading prompts', () => {
    const page = htmlReport(asBenchReport(whole));
    expect(page).toContain('bf16, widened 9 times: tokens per second of one sequence');
    expect(page).toContain('Tokens per second of reading a prompt of 512 tokens');
    const [first = ''] = page.split('<figure').slice(1);
    for (const label of ['redrafter', 'node-llama-cpp', 'plain', 'drafting', 'lookup', 'draft twin', '>34.5<', '>14.3<', '>22.5<']) expect(first, label).toContain(label); // prettier-ignore
    expect(first).not.toContain('threads: 1');
    expect(benchReportOf(JSON.parse(JSON.stringify(asBenchReport(whole)))).suites.peers).toMatchObject({ report: { schema: 1 } }); // prettier-ignore
  });

  it('made in slices is one; another commit or factor does not join', () => {
    const again = { ...prefill, ways: [figures('redrafter', 'plain', [11])] };
    const all = merged(reportOf({ cases: [decode, prefill], costs }), reportOf({ cases: [again] }));
    expect([all.cases, all.costs]).toEqual([[decode, again], costs]);
    expect(() => merged(reportOf({ commit: 'def' }), reportOf({}))).toThrow('another commit');
    const other = reportOf({ precisions: [{ ...precision, factor: 5 }] });
    expect(() => merged(reportOf({}), other)).toThrow('bf16 was widened 9 times, not 5');
    const q8 = { dtype: 'q8_0', factor: 13, parameters: 1e9, weightBytes: 1.1e9 };
    expect(merged(reportOf({}), reportOf({ precisions: [q8] })).precisions).toEqual([precision, q8]);
  });
});
