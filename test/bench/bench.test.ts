/** `redrafter bench`: its options, its suites run on the bundled model with tiny settings, its reports, and how it ends. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';

import { beforeAll, describe, expect, it } from 'vitest';

import { atLeast, below, equal } from '../../lib/bench/bars.js';
import { htmlReport } from '../../lib/bench/html.js';
import { type BenchOptions, checkOptions } from '../../lib/bench/options.js';
import { Progress } from '../../lib/bench/progress.js';
import { choosePrompts, readPrompts, setsOf } from '../../lib/bench/prompts.js';
import type { Report } from '../../lib/bench/report.js';
import type { OpsSuite } from '../../lib/bench/suites/ops.js';
import { median, spreadOf } from '../../lib/bench/statistics.js';
import { differing, type Measured, plainWay, speedOf } from '../../lib/bench/ways.js';
import { at } from '../kit/arrays.js';
import { bundled, trainedDrafters } from '../kit/bundled.js';
import { temporaryDirectory } from '../kit/checkpoint.js';
import { writeTinyModel } from '../lib/tiny.js';

const MAIN = join(import.meta.dirname, '../../dist/cli/main.js');
const directory = temporaryDirectory('bench');
const ONE_THREAD = ['--threads', '1', '--device', 'cpu'];

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

function bench(...args: string[]): Promise<Outcome> {
  const env = { ...process.env, CI: '1' }; // no reason for colours where output is read by a program
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [MAIN, 'bench', ...args], { env }, (_, stdout, stderr) => {
      resolve({ code: child.exitCode, stdout, stderr });
    });
  });
}

const read = (file: string): unknown => JSON.parse(readFileSync(file, 'utf8'));
const number = expect.any(Number) as number;
const spread = { median: number, low: number, high: number };
const speed = { tokensPerSecond: spread, speedup: spread, tokensPerStep: number, eta: number };

/** Elements of a page that are not closed where they should be. */
function unbalanced(html: string): string[] {
  const open: string[] = [];
  const wrong: string[] = [];
  for (const [, closing, name = '', attributes = ''] of html.matchAll(/<(\/?)([a-zA-Z][\w-]*)((?:"[^"]*"|[^">])*)>/g)) {
    if (['meta', 'br', 'hr'].includes(name) || attributes.endsWith('/')) continue;
    if (closing === '') open.push(name);
    else if (open.pop() !== name) wrong.push(name);
  }
  return [...wrong, ...open];
}

/** What a page would load or run. */
function loaded(html: string): string[] {
  const names = html.replaceAll(/\sxmlns(:\w+)?="[^"]*"/g, '');
  const pattern = /https?:|<(script|link|img|image|iframe|object|embed|base)\b|\s(src|srcset|href|xlink:href|on\w+)=|@import|url\((?!#)/gi; // prettier-ignore
  return [...names.matchAll(pattern)].map((match) => match[0]);
}

beforeAll(() => {
  if (!existsSync(MAIN)) throw new Error('dist/ is missing: run `npm run build`');
});

describe('a quick run', () => {
  const [json, html] = [join(directory, 'report.json'), join(directory, 'report.html')];
  let outcome: Outcome;
  let report: Report;
  beforeAll(async () => {
    const suites = ['e2e', '--suite', 'shapes,study', '--drafter', trainedDrafters.gru];
    outcome = await bench(...suites, '--quick', ...ONE_THREAD, '--json', json, '--html', html);
    report = read(json) as Report;
  }, 180_000);

  it('ends well: in quick runs only ids are judged', () => {
    expect(outcome.code).toBe(0);
    expect(report.bars.map(({ name, value, goal, holds }) => ({ name, value, goal, holds }))).toEqual(
      ['continuations whose ids differ from plain decoding', 'continuations of any shape whose ids differ', 'continuations at any temperature whose ids differ'] // prettier-ignore
        .map((name) => ({ name, value: 0, goal: '0', holds: true })),
    );
  });

  it('says what ran where, by the schema', () => {
    expect(Object.keys(report)).toEqual(['schema', 'schemaVersion', 'date', 'version', 'commit', 'machine', 'engine', 'model', 'readBytesPerSecond', 'settings', 'suites', 'bars']); // prettier-ignore
    expect(report).toMatchObject({
      schema: 'redrafter-bench',
      schemaVersion: 1,
      date: expect.stringMatching(/^\d{4}-\d\d-\d\d$/) as string,
      version: expect.stringMatching(/^\d+\.\d+\.\d+/) as string,
      commit: expect.stringMatching(/^[0-9a-f]{7,}\+?$/) as string,
      machine: { cores: number, memoryBytes: number, node: process.version, load: number },
      engine: { device: 'cpu', threads: 1 },
      model: { name: 'ts-declarations', drafters: ['drafter-gru'], weightBytes: number, widened: null }, // prettier-ignore
      settings: { quick: true, prompts: 4, tokens: 24, turns: 1, temperature: 0 },
    });
    expect(report.readBytesPerSecond).toBeGreaterThan(1e8);
    expect(report.model?.stepBytes).toBeLessThanOrEqual(report.model?.weightBytes ?? 0);
  });

  it('compares plain, fixed and adaptive decoding by set of prompts', () => {
    const rows = report.suites.e2e?.rows ?? [];
    const ways = ['1x4', '4x4', 'adaptive'].map((way) => `gru ${way}`);
    for (const set of ['all', 'node modules', 'language']) {
      const own = rows.filter((row) => row.set === set);
      expect(new Set(own.map(({ drafter, way }) => `${drafter?.slice(8) ?? '-'} ${way}`))).toEqual(
        new Set(['- plain', ...ways]),
      );
    }
    for (const row of rows) {
      expect(row).toMatchObject(speed);
      expect(row.eta).toBeCloseTo(row.speedup.median / row.tokensPerStep, 6);
      if (row.way === 'plain') expect([row.speedup.median, row.tokensPerStep]).toEqual([1, 1]);
      if (row.way === '4x4') expect(row.tokensPerStep).toBeGreaterThan(1.5);
    }
    expect(report.suites.e2e).toMatchObject({ compared: 16, differing: 0 });
  });

  it('has costs of rounds by shape, and the optimum', () => {
    const { drafters = [], compared } = report.suites.shapes ?? {};
    expect(drafters.map(({ drafter }) => drafter)).toEqual(['drafter-gru']);
    expect(compared).toBe(4 * 4);
    for (const { cells, optimum, verifyCosts, draftCosts, plain } of drafters) {
      expect(cells.map(({ beamWidth, beamLength }) => `${beamWidth}x${beamLength}`)).toEqual(['1x1', '1x4', '2x1', '2x4']); // prettier-ignore
      const fastest = cells.toSorted((a, b) => b.speedup.median - a.speedup.median)[0];
      const { beamWidth, beamLength, speedup } = at(fastest === undefined ? [] : [fastest], 0);
      expect(optimum).toEqual(speedup.median > 1 ? { beamWidth, beamLength } : null);
      for (const cell of cells) {
        expect(cell).toMatchObject({ ...speed, draftMs: number, verifyMs: number, hostMs: number });
        expect(cell.rows).toBeGreaterThan(1);
        expect(cell.rows).toBeLessThanOrEqual(1 + cell.beamWidth * cell.beamLength);
      }
      expect(at(cells, 0).rows).toBe(2);
      expect(verifyCosts.map(({ rows }) => rows)).toEqual(verifyCosts.map(({ rows }) => rows).sort((a, b) => a - b));
      expect(draftCosts.map(({ beamWidth: width }) => width)).toEqual([1, 2]);
      expect(plain.verifyMs).toBeGreaterThan(0);
    }
  });

  it('has points of the study, at three temperatures', () => {
    const { points = [] } = report.suites.study ?? {};
    expect(points).toHaveLength(3 * 2);
    expect(new Set(points.map(({ temperature }) => temperature))).toEqual(new Set([0, 0.7, 1]));
    for (const point of points) {
      expect(point).toMatchObject(speed);
      expect(point.draftCost).toBeGreaterThan(0);
      expect(point.predicted).toBeCloseTo(point.tokensPerStep / (1 + point.draftCost), 6);
      expect(point.predictedWithVerify).toBeCloseTo(point.tokensPerStep / (point.verifyCost + point.draftCost), 6);
    }
    const mean = (temperature: number): number => {
      const own = points.filter((point) => point.temperature === temperature);
      return own.reduce((sum, { tokensPerStep }) => sum + tokensPerStep, 0) / own.length;
    };
    expect(mean(0)).toBeGreaterThan(mean(1)); // acceptance does vary
  });

  it('prints tables, and its progress apart from them', () => {
    for (const title of [
      'End to end, all prompts',
      'End to end, language',
      'drafter-gru: speedup by beam width',
      'Speed by cost and acceptance',
      'Bars',
    ]) {
      // prettier-ignore
      expect(outcome.stdout).toContain(`\n${title}`);
    }
    expect(outcome.stderr).toMatch(/^e2e 1\/4: plain, 0:00$/m);
    expect(outcome.stderr).toMatch(/^study 9\/9: drafter-gru 1x4, .* left$/m);
    expect(outcome.stderr).not.toContain('\r');
  });

  it('writes one page that is whole and loads nothing', () => {
    const page = readFileSync(html, 'utf8');
    expect(unbalanced(page)).toEqual([]);
    expect(loaded(page)).toEqual([]);
    const count = (text: string): number => page.split(text).length - 1;
    expect([count('<section>'), count('<svg ')]).toEqual([3, 1 + 3 + 3]);
    expect(page.startsWith('<!doctype html>')).toBe(true);
    for (const text of ['drafter-gru: speedup over plain decoding', 'draft cost / target cost', 'redrafter bench']) {
      expect(page).toContain(text);
    }
  });

  it('would not pass as such a page when it loaded something, or ended early (negative control)', () => {
    const page = readFileSync(html, 'utf8');
    expect(loaded(`${page}<script src="https://x.example/y.js"></script>`).length).toBeGreaterThan(0);
    expect(loaded('<div style="background: url(http://x)">').length).toBeGreaterThan(0);
    expect(unbalanced(page.slice(0, page.length >> 1))).not.toEqual([]);
  });

  it('compares several drafters, by default those of the bundled model', async () => {
    const file = join(directory, 'drafters.json');
    const { code } = await bench('--quick', '--tokens', '8', '--beam-shapes', '1x3', ...ONE_THREAD, '--json', file);
    expect(code).toBe(0);
    const rows = (read(file) as Report).suites.e2e?.rows.filter(({ set }) => set === 'all') ?? [];
    expect(rows.map(({ drafter, way }) => [drafter, way])).toEqual([
      [null, 'plain'],
      ...['drafter-gru', 'drafter-elman'].flatMap((drafter) => [
        [drafter, '1x3'],
        [drafter, 'adaptive'],
      ]),
    ]);
  });

  it('escapes names in pages', () => {
    const evil = '"><script>alert(1)</script>';
    const text = JSON.stringify(report).replaceAll('drafter-gru', JSON.stringify(evil).slice(1, -1));
    const page = htmlReport(JSON.parse(text) as Report);
    expect(loaded(page)).toEqual([]);
    expect(unbalanced(page)).toEqual([]);
    expect(page).toContain('&lt;script&gt;');
  });
});

describe('suites that need sources', () => {
  const root = join(import.meta.dirname, '../..');

  it('ops: kernels beside limits, or why not', async () => {
    const json = join(directory, 'ops.json');
    const dtypes = ['--dtype', 'bf16', '--drafter-dtype', 'q4_0'];
    const { code, stdout } = await bench('ops', '--quick', '--threads', '1', ...dtypes, '--json', json);
    const { ops } = (read(json) as Report).suites;
    expect(code).toBe(0);
    if (!existsSync(join(root, 'bench/ops/ops.cc'))) {
      expect(stdout).toContain('Not available: bench/ops, the program that measures, is not in this clone.');
      return;
    }
    const { rows } = ops as OpsSuite;
    expect(new Set(rows.map(({ kernel }) => kernel))).toContain('matmul');
    expect(new Set(rows.map(({ kernel }) => kernel))).toContain('attention');
    for (const row of rows) {
      expect(row).toMatchObject({ threads: 1, ms: number, readBytesPerSecond: number, peakFlopPerSecond: number });
      expect(row.ofLimit).toBe(Math.max(row.ofBandwidth, row.ofPeak));
      expect(row.ofBandwidth).toBe(row.bytesPerSecond / row.readBytesPerSecond);
      expect(row.bytesPerSecond).toBeGreaterThan(0);
    }
    const dtypesOf = (kernel: string): string[] => [...new Set(rows.filter((row) => row.kernel === kernel).map(({ dtype }) => dtype))]; // prettier-ignore
    expect(['matmul', 'embed', 'cell', 'residual', 'head_top', 'mix', 'norm'].map(dtypesOf)).toEqual(
      [['bf16'], ['bf16'], ['q4_0'], ['q4_0'], ['q4_0'], ['q4_0', 'f32'], ['f32']], // prettier-ignore
    );
    // Memory was read beside each kernel, not once for all of them.
    const speeds = new Set(rows.filter(({ kernel }) => kernel !== 'matmul').map((row) => row.readBytesPerSecond));
    expect(speeds.size).toBeGreaterThan(10);
  });

  it.skipIf(!existsSync(join(root, 'bench/ops/ops.cc')))('ops: weights of 16 and of 8 bits', async () => {
    const json = join(directory, 'ops-dtypes.json');
    expect((await bench('ops', '--quick', '--threads', '1', '--json', json)).code).toBe(0);
    const { rows } = (read(json) as Report).suites.ops as OpsSuite;
    const bytesOf = (dtype: string): number[] =>
      ['matmul', 'cell', 'residual', 'head_top'].map((kernel) => {
        const found = rows.find((row) => row.kernel === kernel && row.dtype === dtype);
        return (found?.bytesPerSecond ?? 0) * (found?.ms ?? 0);
      });
    const [wide, narrow] = [bytesOf('bf16'), bytesOf('q8_0')];
    const small = narrow.map((bytes, i) => bytes / (wide[i] ?? 0));
    for (const ratio of small.slice(1)) expect(ratio, String(small)).toSatisfy((r: number) => r > 0.5 && r < 0.7);
    expect(rows.filter(({ kernel }) => kernel === 'norm').map(({ rows: n }) => n)).toEqual([1, 32]); // once each
  });

  it('ops: not on CUDA', async () => {
    const { code, stdout } = await bench('ops', '--device', 'cuda');
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^Not available: .*(CUDA|clone)/m)]);
  });
});

describe('a widened model', () => {
  it('writes what the small one does, is named so, and leaves nothing behind', async () => {
    const json = join(directory, 'wide.json');
    const before = readdirSync(tmpdir()).filter((name) => name.startsWith('redrafter-wide-'));
    const args = ['--widen', '2', '--dtype', 'f32', '--beam-shapes', '1x3', '--drafter', trainedDrafters.gru];
    const { code, stdout } = await bench(...args, '--quick', ...ONE_THREAD, '--json', json);
    expect(code).toBe(0);
    const report = read(json) as Report;
    expect(report.model).toMatchObject({ name: 'ts-declarations, widened 2 times', widened: 2 });
    expect(report.model?.weightBytes).toBeGreaterThan(90e6); // f32, and nearly four times the weights
    expect(at(report.bars, 0)).toEqual(equal("of 4 continuations by the widened model, those that differ from the small one's", 0, 0)); // prettier-ignore
    expect(stdout).toContain('widened 2 times');
    expect(report.suites.e2e?.rows.filter(({ set }) => set === 'all').map(({ way }) => way)).toEqual(['plain', '1x3', 'adaptive']); // prettier-ignore
    expect(readdirSync(tmpdir()).filter((name) => name.startsWith('redrafter-wide-'))).toEqual(before);
  });
});

describe('other models', () => {
  const tiny = writeTinyModel();
  const prompts = join(directory, 'prompts.json');
  writeFileSync(prompts, JSON.stringify([{ tokenIds: [1, 2, 3] }, { tokenIds: [7], set: 'short' }]));

  it('take prompts of token ids, in sets', async () => {
    const json = join(directory, 'tiny.json');
    const args = ['--model', tiny.idsOnly, '--drafter', tiny.drafter, '--prompts', prompts, '--quick', ...ONE_THREAD];
    const { code, stderr } = await bench(...args, '--json', json);
    expect([code, stderr]).toEqual([0, expect.stringContaining('e2e 4/4')]);
    const { suites } = read(json) as Report;
    expect([...new Set(suites.e2e?.rows.map(({ set }) => set))]).toEqual(['all', 'prompts', 'short']);
  });

  it('give the errors of loading and of text, from the process that met them', async () => {
    const model = ['--model', tiny.idsOnly, '--drafter', tiny.drafter, '--quick'];
    expect(await bench(...model)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('error [ERR_TOKENIZER]') as string,
    });
    const wrong = ['--drafter', tiny.drafter, '--quick', ...ONE_THREAD];
    expect(await bench(...wrong)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('error [ERR_DRAFTER]') as string,
    });
  });
});

describe('options', () => {
  it.each([
    [['nonsense'], 'a suite must be one of e2e, shapes, study, ops, peers'],
    [['--beam-shapes', '4'], 'beams x tokens'],
    [['--beam-shapes', '0x4'], '1 to 64 beams'],
    [['--beam-shapes', '1x9'], '1 to 8 tokens'],
    [['--widen', '65'], 'widen must be an integer from 1 to 64'],
    [['--turns', '0'], 'turns must be'],
    [['--tokens', '1'], 'tokens must be'],
    [['--tokens', 'many'], '--tokens must be an integer'],
    [['--temperature', '-1'], 'temperature must be'],
    [['--threads', '0'], 'threads must be'],
    [['--model', '/nowhere'], 'the model "/nowhere" is no directory'],
    [['--drafter', '/nowhere'], 'the drafter "/nowhere" is no directory'],
    [['--dtype', 'f8'], 'f8'],
    [['--drafter-dtype', 'q4_1'], 'q4_1'],
    [['--what'], 'unknown option'],
  ])('%j: ERR_INVALID_ARGUMENT', async (args, message) => {
    const { code, stdout, stderr } = await bench(...args);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toContain('error [ERR_INVALID_ARGUMENT]');
    expect(stderr).toContain(message);
  });

  it.each([
    ['no file', undefined],
    ['no JSON', '{'],
    ['nothing in it', '[]'],
    ['no array', '{"text": "a"}'],
    ['no prompt', '[{"txt": "a"}]'],
    ['wrong ids', '[{"tokenIds": [1, -1]}]'],
    ['wrong set', '[{"text": "a", "set": 1}]'],
  ])('a file of prompts with %s: ERR_FILE', (name, text) => {
    const path = join(directory, `${name}.json`);
    if (text !== undefined) writeFileSync(path, text);
    expect(() => readPrompts([path])).toThrow(expect.objectContaining({ code: 'ERR_FILE' }) as Error);
  });

  it('asks for a drafter where one is needed', () => {
    const model = writeTinyModel().model;
    expect(() => checkOptions({ model })).toThrow('give at least one with --drafter');
    expect(checkOptions({ model, suites: ['ops'] }).drafters).toEqual([]);
    expect(() => checkOptions({ beams: 1 } as BenchOptions)).toThrow('unknown option');
  });

  it('refuses a file that cannot be written before it measures', async () => {
    const { code, stderr } = await bench('--quick', '--json', join(directory, 'no/such/folder.json'));
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^error \[ERR_FILE\]: cannot write/)]);
  });

  it('are in the help', async () => {
    const { code, stdout } = await bench('--help');
    expect(code).toBe(0);
    for (const name of [
      'suite',
      'model',
      'drafter',
      'prompts',
      'device',
      'dtype',
      'drafter-dtype',
      'threads',
      'beam-shapes',
      'widen',
      'tokens',
      'turns',
      'prompt-count',
      'temperature',
      'quick',
      'json',
      'html',
    ]) {
      // prettier-ignore
      expect(stdout).toContain(`--${name}`);
    }
  });
});

describe.skipIf(process.platform !== 'linux')('ended early', () => {
  /** Child processes of a process. */
  const childrenOf = (pid: number): number[] =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number); // prettier-ignore

  /** Starts a long run, and waits until a trial of it runs. */
  async function started(): Promise<{
    parent: ChildProcess;
    children: number[];
    ended: Promise<number | null>;
    stderr: () => string;
  }> {
    const args = [MAIN, 'bench', '--model', bundled, '--tokens', '100', '--turns', '1000', ...ONE_THREAD];
    const parent = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let text = '';
    parent.stderr.on('data', (piece: Buffer) => (text += piece.toString()));
    const ended = new Promise<number | null>((resolve) => parent.once('close', resolve));
    for (let i = 0; i < 2000 && !text.includes('e2e 2/'); i++) await wait(10);
    let children: number[] = [];
    for (let i = 0; i < 2000 && children.length === 0; i++) {
      children = childrenOf(parent.pid ?? 0);
      await wait(1);
    }
    expect(children).toHaveLength(1);
    return { parent, children, ended, stderr: () => text };
  }

  /** Whether all are gone, within some seconds. */
  async function gone(pids: readonly number[]): Promise<boolean> {
    for (let i = 0; i < 500; i++) {
      if (!pids.some((pid) => existsSync(`/proc/${pid}`))) return true;
      await wait(10);
    }
    return false;
  }

  it('by Ctrl-C, it says so with 130, and no child is left', async () => {
    const { parent, children, ended, stderr } = await started();
    parent.kill('SIGINT');
    expect(await ended).toBe(130);
    expect(stderr()).toContain('error [ERR_ABORTED]');
    expect(children.filter((pid) => existsSync(`/proc/${pid}`))).toEqual([]);
  });

  it('by being killed, its child ends by itself', async () => {
    const { parent, children, ended } = await started();
    parent.kill('SIGKILL');
    await ended;
    expect(await gone(children)).toBe(true);
  });
});

describe('what is compared', () => {
  const trial = (ids: string[], tokens: number, decodeMs: number): Measured['trials'][number] => ({
    version: '0',
    engine: { device: 'cpu', level: '', dtype: '', threads: 1 },
    weightBytes: 0,
    stepBytes: 0,
    sets: [{ set: 'a', prompts: 1, tokens, rounds: 10, draftedRounds: 0, draftedNodes: 0, draftMs: 0, verifyMs: 0, hostMs: 0, prefillMs: 0, decodeMs }], // prettier-ignore
    ids,
  });
  const way = plainWay(0);

  it('is each turn with the plain decoding of that turn', () => {
    // The machine was half as fast in the second turn: the ratio is the same.
    const plain = { way, trials: [trial(['x'], 10, 100), trial(['x'], 10, 200)] };
    const other = { way, trials: [trial(['x'], 30, 150), trial(['x'], 30, 300)] };
    const { speedup, tokensPerStep, eta } = speedOf(other, plain);
    expect(speedup).toEqual({ median: 2, low: 2, high: 2 });
    expect([tokensPerStep, eta]).toEqual([3, 2 / 3]);
  });

  it('is every continuation, and another id is noticed (negative control)', () => {
    const plain = { way, trials: [trial(['x', 'y'], 10, 100)] };
    expect(differing([plain, plain], plain)).toEqual({ compared: 4, differing: 0 });
    const other = { way, trials: [trial(['x', 'z'], 10, 100), trial(['x'], 10, 100)] };
    expect(differing([plain, other], plain)).toEqual({ compared: 6, differing: 2 });
  });

  it('is judged by bars', () => {
    expect([below('a', 5, 5), below('a', 4.9, 5), atLeast('b', 1, 1), atLeast('b', NaN, 1), equal('c', 1, 0)].map(({ holds }) => holds)).toEqual([false, true, true, false, false]); // prettier-ignore
  });

  it('is a median with its spread', () => {
    expect([median([3, 1, 2]), median([4, 1, 2, 3]), median([])]).toEqual([2, 2.5, NaN]);
    expect(spreadOf([3, 1, 2])).toEqual({ median: 2, low: 1, high: 3 });
  });

  it('is spread over a file of prompts, set by set', () => {
    const prompts = Array.from({ length: 30 }, (_, i) => ({ set: i < 20 ? 'a' : 'b', input: String(i) }));
    expect(setsOf(prompts)).toEqual(['a', 'b']);
    expect(choosePrompts(prompts, 4).map(({ input }) => input)).toEqual(['0', '5', '10', '15', '20', '22', '25', '27']);
    expect(choosePrompts(prompts, 100)).toEqual(prompts);
  });
});

describe('progress', () => {
  const lines = (isTTY: boolean): string[] => {
    const written: string[] = [];
    const progress = new Progress({ isTTY, write: (text: string) => written.push(text) });
    progress.start('e2e', 2);
    progress.begin('plain');
    progress.begin('1x4');
    progress.clear();
    return written;
  };
  it('is a line for each trial, or one that is rewritten on a terminal', () => {
    expect(lines(false)).toEqual(['e2e 1/2: plain, 0:00\n', 'e2e 2/2: 1x4, 0:00, 0:00 left\n']);
    expect(lines(true)).toEqual(['\r\x1b[Ke2e 1/2: plain, 0:00', '\r\x1b[Ke2e 2/2: 1x4, 0:00, 0:00 left', '\r\x1b[K']);
  });
});
