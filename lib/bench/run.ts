/** A whole benchmark: the suites that were asked for, one after another, and the report of them. */
import { RedrafterError } from '../errors.js';
import { version } from '../system.js';
import type { Bar } from './bars.js';
import { measureBandwidth } from './children.js';
import { commitOf, describeMachine, today } from './machine.js';
import type { Settings } from './options.js';
import type { Progress } from './progress.js';
import { type Report, SCHEMA_VERSION, type SuiteName } from './report.js';
import { runE2e } from './suites/e2e.js';
import { runOps } from './suites/ops.js';
import { runPeers } from './suites/peers.js';
import { runShapes } from './suites/shapes.js';
import { runStudy } from './suites/study.js';
import { type Bench, promptsFor } from './ways.js';
import { compareWithSmall, widenAll } from './widened.js';

/** Suites that load the model themselves. */
const LOADING: readonly SuiteName[] = ['e2e', 'shapes', 'study'];

async function runSuites(bench: Bench, report: Report): Promise<void> {
  const { settings, progress, signal } = bench;
  const { suites, bars } = report;
  const add = <T>({ suite, bars: own }: { suite: T; bars: Bar[] }): T => {
    bars.push(...own);
    return suite;
  };
  const wants = (name: SuiteName): boolean => settings.suites.includes(name);
  if (settings.widen !== undefined && settings.suites.some((name) => LOADING.includes(name))) {
    bars.push(await compareWithSmall(bench));
  }
  if (wants('e2e')) suites.e2e = add(await runE2e(bench));
  if (wants('shapes')) suites.shapes = add(await runShapes(bench));
  if (wants('study')) suites.study = add(await runStudy(bench));
  if (wants('ops')) suites.ops = await runOps(settings, progress, signal);
  if (wants('peers')) suites.peers = add(await runPeers(bench));
}

/** What the first trial found: who ran, on what. */
async function describeModel(bench: Bench, report: Report): Promise<void> {
  const { first, progress, settings, model, drafters, signal } = bench;
  if (first === undefined) return;
  report.engine = first.engine;
  report.model = {
    name: model.name,
    drafters: drafters.map(({ name }) => name),
    weightBytes: first.weightBytes,
    stepBytes: first.stepBytes,
    widened: settings.widen ?? null,
  };
  if (first.engine.device !== 'cpu') return;
  progress.start('machine', 0);
  progress.begin('reading memory');
  report.readBytesPerSecond = await measureBandwidth(first.engine.threads, signal);
}

/** Rejects with ERR_ABORTED when the signal fires, after the child that runs has ended; else with what a suite finds wrong. */
export async function runBench(settings: Settings, progress: Progress, signal: AbortSignal): Promise<Report> {
  const report: Report = {
    schema: 'redrafter-bench',
    schemaVersion: SCHEMA_VERSION,
    date: today(),
    version: version(),
    commit: commitOf(),
    machine: describeMachine(),
    engine: null,
    model: null,
    readBytesPerSecond: null,
    settings: {
      quick: settings.quick,
      prompts: 0,
      tokens: settings.tokens,
      turns: settings.turns,
      temperature: settings.temperature ?? 0,
    },
    suites: {},
    bars: [],
  };
  let remove = (): void => undefined;
  const bench: Bench = { settings, model: settings.model, drafters: settings.drafters, progress, signal };
  try {
    if (settings.widen !== undefined) {
      progress.start('widening', 0);
      progress.begin(`${settings.widen} times`);
      const wide = await widenAll(settings.model, settings.drafters, settings.widen);
      ({ remove } = wide);
      bench.model = wide.model;
      bench.drafters = wide.drafters;
    }
    report.settings.prompts = promptsFor(bench).length;
    await runSuites(bench, report);
    await describeModel(bench, report);
  } catch (error) {
    if (!signal.aborted || error instanceof RedrafterError) throw error;
    throw new RedrafterError('ERR_ABORTED', 'the benchmark was ended', { cause: signal.reason });
  } finally {
    progress.clear();
    remove();
  }
  return report;
}
