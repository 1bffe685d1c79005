/** bench/e2e: its script run with tiny settings, its plans, and that what it measures under load is what runs alone give. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { type Outcome, percentiles, runCell } from '../../bench/e2e/cell.mjs';
import { LENGTHS, planArrivals, planRequests } from '../../bench/e2e/plan.mjs';
import { barTable, below, equal, loadTable, type Row } from '../../bench/e2e/report.mjs';
import { growthOf, planSoak, soak, soakBars } from '../../bench/e2e/soak.mjs';
import { Model } from '../../lib/index.js';
import { at } from '../kit/arrays.js';
import { bundled, prompts, trainedDrafters } from '../kit/bundled.js';
import { temporaryDirectory } from '../kit/checkpoint.js';

const script = join(import.meta.dirname, '../../bench/e2e/load.mjs');
const texts = prompts.map(({ text }) => text);
const directory = temporaryDirectory('bench-load');

/** Runs the script; a bar may not hold here, as others use the machine. */
function run(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [script, ...args], { encoding: 'utf8', timeout: 50_000 });
}

const read = (file: string): unknown => JSON.parse(readFileSync(file, 'utf8'));
const number = expect.any(Number) as number;
const three = { p50: number, p95: number, p99: number };

let model: Model;
beforeAll(async () => {
  model = await Model.load(bundled, { drafter: trainedDrafters.gru, threads: 1, device: 'cpu', kvTokens: 2048 });
});
afterAll(() => model.dispose());

describe('the script', () => {
  interface Report {
    adaptive: boolean;
    answers: { compared: number; differing: number };
    rows: Row[];
    bars: { name: string; value: number; goal: string; holds: boolean }[];
  }
  const file = join(directory, 'load.json');
  let report: Report;
  let outcome: ReturnType<typeof run>;
  beforeAll(() => {
    outcome = run('--rates', '20,200', '--requests', '6', '--threads', '1', '--max-queued', '4', '--json', file);
    report = read(file) as Report;
  });

  it('writes figures of every rate and mode, and says which mode this build has not', () => {
    const modes = report.adaptive ? ['adaptive', 'fixed', 'off'] : ['fixed', 'off'];
    expect(outcome.stderr.includes('adaptive drafting: not in this build')).toBe(!report.adaptive);
    expect(report.rows.map(({ perSecond, drafting }) => `${perSecond} ${drafting}`)).toEqual(
      [20, 200].flatMap((rate) => modes.map((mode) => `${rate} ${mode}`)),
    );
    expect(report).toMatchObject({
      date: expect.stringMatching(/^\d{4}-\d\d-\d\d$/) as string,
      commit: expect.stringMatching(/^[0-9a-f]{7,}$/) as string,
      machine: { cores: number, node: process.version, load: number },
      engine: { device: 'cpu', threads: 1, kvTokens: 4096, maxQueuedRequests: 4 },
      seed: 1,
      model: 'ts-declarations',
      drafter: 'drafter-gru',
      requestsPerCell: 6,
      capacity: null,
    });
    for (const row of report.rows) {
      expect(row).toMatchObject({
        requests: 6,
        timeToFirstTokenMs: three,
        timePerTokenMs: three,
        queuedMs: three,
        startedMs: three,
        eventLoopDelayMs: { p50: number, p99: number, max: number },
      });
      expect(row.done + row.refused).toBe(6);
      expect(row.done).toBeGreaterThan(0);
      for (const figure of [row.seconds, row.tokensPerSecond, row.requestsPerSecond, row.eventLoopDelayMs.p99])
        expect(figure).toBeGreaterThan(0);
      expect(row.batchesPerSecond).toBeGreaterThan(0);
      expect(row.messagesPerSecond).toBeGreaterThanOrEqual(row.batchesPerSecond);
      expect(row.tokensPerStep).toBeGreaterThanOrEqual(1); // adaptive drafting may decline all
      if (row.drafting !== 'adaptive') expect(row.tokensPerStep > 1).toBe(row.drafting === 'fixed');
      expect(row.timeToFirstTokenMs.p99).toBeGreaterThanOrEqual(row.timeToFirstTokenMs.p50);
    }
  });

  it('compares answers, and exits by its bars', () => {
    expect(report.answers.compared).toBeGreaterThan(6);
    expect(report.answers.differing).toBe(0);
    expect(report.bars.map(({ name }) => name)).toEqual([
      'event-loop delay p99 at full load, ms',
      'resident memory, end less warm-up, bytes',
      'KV blocks lost',
      'answers with other ids',
    ]);
    expect(report.bars.slice(2).every(({ holds }) => holds)).toBe(true);
    expect(outcome.status).toBe(report.bars.every(({ holds }) => holds) ? 0 : 1);
    const lines = outcome.stdout.split('\n');
    const rows = lines.slice(0, report.rows.length + 1);
    expect(new Set(rows.map((line) => line.split('\t').length))).toEqual(new Set([20]));
    expect(lines.filter((line) => /\t *(yes|NO)$/.test(line))).toHaveLength(4);
  });

  const python = process.env['PYTHON'] ?? 'python3';
  const draws = spawnSync(python, ['-c', 'import matplotlib']).status === 0;
  it.skipIf(!draws)('has a plot', () => {
    const [plot, svg] = [join(dirname(script), 'plot_load.py'), join(directory, 'load.svg')];
    expect(spawnSync(python, [plot, file, svg]).status).toBe(0);
    expect(readFileSync(svg, 'utf8')).toContain('</svg>');
  });

  it('does not measure when it could not draw', () => {
    const env = { ...process.env, PYTHON: process.execPath };
    const args = [script, '--json', join(directory, 'none.json'), '--plot', 'x.svg'];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', env });
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    expect(stderr).toContain('has no matplotlib');
  });

  it('has a help, and refuses what it does not know', () => {
    const help = run('--help');
    expect(help.status).toBe(0);
    for (const option of ['--rates', '--requests', '--seed', '--threads', '--drafter', '--soak', '--json', '--plot'])
      expect(help.stdout).toContain(option);
    for (const args of [['--rates', '0'], ['--shape', '1'], ['--modes', 'of'], ['--what'], ['--plot', 'x.svg']])
      expect(run(...args)).toMatchObject({ status: 1, stdout: '' });
  });
});

describe('a plan', () => {
  it('is the same for the same seed, and another for another', () => {
    expect(planRequests(7, 50, texts)).toEqual(planRequests(7, 50, texts));
    expect(planRequests(7, 50, texts)).not.toEqual(planRequests(8, 50, texts));
    expect(planRequests(7, 20, texts)).toEqual(planRequests(7, 50, texts).slice(0, 20));
    expect(planArrivals(7, 50, 3)).toEqual(planArrivals(7, 50, 3));
    expect(planArrivals(7, 50, 3)).not.toEqual(planArrivals(8, 50, 3));
    expect(planSoak(7, 50, texts)).toEqual(planSoak(7, 50, texts));
    expect(planSoak(7, 50, texts)).not.toEqual(planSoak(8, 50, texts));
  });

  it('has the arrivals of a Poisson process: gaps with the mean and the spread of an exponential', () => {
    const count = 20_000;
    const arrivals = planArrivals(3, count, 50);
    const gaps = arrivals.map((time, i) => time - (arrivals[i - 1] ?? 0));
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / count;
    const deviation = Math.sqrt(gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / count);
    // Standard errors of both: 20 ms / sqrt(count), and sqrt(2) times that; five of them.
    expect(Math.abs(mean - 20)).toBeLessThan(0.71);
    expect(Math.abs(deviation - 20)).toBeLessThan(1);
    expect(Math.min(...gaps)).toBeGreaterThan(0);
    const twice = planArrivals(3, 10, 100);
    twice.forEach((time, i) => {
      expect(time).toBeCloseTo(at(arrivals, i) / 2);
    });
  });

  it('mixes lengths within their limits', () => {
    const requests = planRequests(1, 500, texts);
    const tokens = requests.map(({ maxTokens }) => maxTokens);
    const [least = 0, most = 0] = LENGTHS.outputTokens;
    expect(Math.min(...tokens)).toBe(least);
    expect(Math.max(...tokens)).toBeLessThanOrEqual(most);
    expect(Math.max(...tokens)).toBeGreaterThan(0.9 * most);
    expect(tokens.filter((count) => count < 36).length).toBeGreaterThan(200); // the geometric mean of the limits
    expect(requests.every(({ text }) => text.length >= 24 && texts.some((whole) => whole.startsWith(text)))).toBe(true);
    const aborted = planSoak(1, 5000, texts).filter(({ way }) => way !== 'none');
    expect(aborted.length / 5000).toBeCloseTo(0.2, 1);
    expect(new Set(aborted.map(({ way }) => way)).size).toBe(5);
  });
});

describe('under load', () => {
  const requests = planRequests(5, 24, texts);
  const none = (): { batches: number; messages: number } => ({ batches: 0, messages: 0 });

  /** Answers of each request that differ from those of a plain run alone. */
  async function differing(done: readonly Outcome[]): Promise<number[]> {
    const wrong: number[] = [];
    for (const { index, tokenIds } of done) {
      const { text, maxTokens, temperature, seed } = at(requests, index);
      const session = await model.createSession();
      const options = { maxTokens, temperature, seed, ignoreEos: true, drafting: false };
      const alone = await session.generate(text, options).result();
      await session.dispose();
      if (alone.tokenIds.join() !== tokenIds.join()) wrong.push(index);
    }
    return wrong;
  }

  it.each([{ drafting: false }, { beamWidth: 1, beamLength: 4 }, {}])(
    'requests have the ids of a plain run alone: %o',
    async (drafting) => {
      const arrivalsMs = planArrivals(5, requests.length, 300);
      const { done, figures } = await runCell(model, { requests, arrivalsMs, drafting, batches: none });
      expect(done).toHaveLength(requests.length);
      expect(await differing(done)).toEqual([]);
      // They were asked when they were planned to, not one after the other: an open loop.
      expect(figures.startedMs.p99).toBeLessThan(1000 * figures.seconds);
      for (const { firstTokenMs, lastTokenMs, queuedMs, tokenIds, index } of done) {
        expect(lastTokenMs).toBeGreaterThanOrEqual(firstTokenMs);
        expect(firstTokenMs).toBeGreaterThan(queuedMs);
        expect(tokenIds).toHaveLength(at(requests, index).maxTokens);
      }
      const mixed = done.map((outcome, i) => ({ ...outcome, tokenIds: at(done, (i + 1) % done.length).tokenIds }));
      expect((await differing(mixed)).length).toBeGreaterThan(20); // a mix-up would be seen
    },
  );

  it('counts those that a full queue refuses', async () => {
    const options = { drafter: trainedDrafters.gru, threads: 1, device: 'cpu', kvTokens: 512 } as const;
    await using small = await Model.load(bundled, { ...options, maxQueuedRequests: 1 });
    const arrivalsMs = requests.map(() => 0);
    const { done, figures } = await runCell(small, { requests, arrivalsMs, drafting: {}, batches: none });
    expect(figures.refused).toBeGreaterThan(0);
    expect(figures.refused + done.length).toBe(requests.length);
    expect(await differing(done)).toEqual([]);
  });
});

describe('the soak', () => {
  it('of 300 requests leaves nothing behind, in a process of its own', () => {
    const file = join(directory, 'soak.json');
    const { stdout, stderr } = run('--soak', '300', '--threads', '1', '--json', file);
    const report = read(file) as Awaited<ReturnType<typeof soak>> & { bars: { holds: boolean }[] };
    expect(report).toMatchObject({ requests: 300, failed: 0, unhandled: 0, lostBlocks: 0 });
    expect(report.done + report.cut).toBe(300);
    expect(report.cut).toBeGreaterThan(20);
    expect(report.memory).toHaveLength(20);
    expect(report.growthBytes).toBeLessThan(16 * 2 ** 20);
    expect(stdout).toContain('KV blocks lost');
    expect(stderr).toContain('300 of 300 requests');
  });

  it('sees blocks that do not come back', async () => {
    const kept = await model.createSession();
    let holding: Promise<void> | undefined;
    const onProgress = (): void => {
      holding ??= kept.append(new Int32Array(40));
    };
    const result = await soak(model, { seed: 2, count: 40, texts, onProgress });
    await holding;
    await kept.dispose();
    expect(result.lostBlocks).toBe(3);
    expect(soakBars(result).map(({ holds }) => holds)).toEqual([expect.any(Boolean), false, true, true]);
    const broken = { ...result, growthBytes: 2 ** 23, unhandled: 1, failed: 1 };
    expect(soakBars(broken).some(({ holds }) => holds)).toBe(false);
  });

  it('takes growth from the end of the warm-up to the end', () => {
    const memory = Array.from({ length: 20 }, (_, i) => ({ requests: i, bytes: 1000 + 10 * i }));
    expect(growthOf(memory)).toEqual({ warmBytes: 1030, endBytes: 1190, growthBytes: 160 });
  });
});

describe('the report', () => {
  it('takes percentiles by nearest rank', () => {
    expect(percentiles(Array.from({ length: 200 }, (_, i) => 200 - i))).toEqual({ p50: 100, p95: 190, p99: 198 });
    expect(percentiles([4])).toEqual({ p50: 4, p95: 4, p99: 4 });
    expect(percentiles([])).toEqual({ p50: 0, p95: 0, p99: 0 });
  });

  it('says which bars hold', () => {
    expect([below('a', 4.9, 5), below('b', 5, 5), equal('c', 0, 0), equal('d', 1, 0)].map(({ holds }) => holds)).toEqual([true, false, true, false]); // prettier-ignore
    expect(barTable([below('a', 5, 5)])).toMatch(/a\t +5\tbelow 5\t +NO\n$/);
    expect(loadTable([]).split('\t')).toHaveLength(20);
  });
});
