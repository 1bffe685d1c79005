/** What bench/peers reports, and the same as a report of `redrafter bench`. bench/peers/README.md documents it. */
import type { Bar } from './bars.js';
import type { Machine } from './machine.js';
import { type Report, SCHEMA_VERSION } from './report.js';
import { median, type Spread } from './statistics.js';

/** What redrafter says of its own trials, a value for each; the peer has no such figures. */
export interface OwnFigures {
  /** Milliseconds of the target in a round. */
  verifyMs: number[];
  /** Milliseconds of the drafter in a round that drafted; 0 without a drafter. */
  draftMs: number[];
  /** Milliseconds of the engine between two passes. */
  hostMs: number[];
  /** Tokens deep that a round drafted, and rows of the target in it, the root included. */
  draftTokens: number[];
  verifyRows: number[];
  /** Bytes of what was loaded; `step` is what a plain step reads of the weights. */
  bytes: { weights: number; drafter: number; kv: number; workspace: number; step: number };
}

/** The trials of one way of decoding. */
export interface PeersWay {
  engine: 'redrafter' | 'node-llama-cpp';
  way: string;
  /** Of each trial, in the order of the turns. */
  tokensPerSecond: number[];
  median: number;
  min: number;
  max: number;
  /** Tokens per forward pass of the target, and sequence. */
  tokensPerStep: number;
  /** The most that any trial had resident. */
  memoryBytes: number;
  /** Trials that gave other ids than the first one. */
  otherIds: number;
  own: OwnFigures | null;
}

export interface PeersCase {
  case: 'decode' | 'prefill' | 'batch';
  dtype: string;
  /** Sequences at once. */
  rows: number;
  ways: PeersWay[];
  /** Read bandwidth beside the plain trial of redrafter, turn by turn; empty where it was not measured. */
  readBytesPerSecond: number[];
  /** Of ids of redrafter's drafting: continuations that were compared with plain ones, and how many were others. */
  drafted: { compared: number; differing: number };
  /** Prompts that both engines continue plainly by the same ids, of those that both continued. */
  agreeing: { prompts: number; same: number };
}

/** What so many rows of one sequence cost the whole target, as a multiple of one row. */
export interface PeersCost {
  dtype: string;
  rows: number;
  cost: Spread;
  /** Milliseconds of the pass. */
  ms: Spread;
}

/** What was measured under the name of a dtype. */
export interface PeersPrecision {
  dtype: string;
  /** How many times the units of model and drafter are there; 1: as they were. */
  factor: number;
  parameters: number;
  /** Weights as they are stored. */
  weightBytes: number;
}

export interface PeersAgreement {
  dtype: string;
  factor: number;
  /** Whether both compute with the same precision: weights, activations and KV in f32. */
  exact: boolean;
  prompts: number;
  /** Of each. */
  tokens: number;
  /** Prompts whose ids are the same to the end. */
  same: number;
  /** The first differing token of the others, and by how much each engine's first logit was larger than its second there. */
  parted: {
    prompt: number;
    position: number;
    redrafter: number;
    peer: number;
    redrafterMargin: number;
    peerMargin: number;
  }[];
}

export interface PeersReport {
  schema: 1;
  date: string;
  commit: string | null;
  versions: { redrafter: string; nodeLlamaCpp: string; llamaCpp: string };
  /** Before anything was measured. */
  machine: Machine;
  /** Of both engines. */
  device: 'cpu';
  threads: number;
  /** What the peer was tried with. */
  peerThreads: number[];
  model: { name: string; drafter: string | null };
  settings: {
    quick: boolean;
    prompts: number;
    tokens: number;
    idsTokens: number;
    turns: number;
    prefillTokens: number;
  };
  /** What each says of itself. */
  engines: Record<string, Record<string, string>>;
  /** Whether the peer's tokenizer, from the same file, gives the same ids for the prompts. */
  tokenizer: { pre: 'same' | 'other'; texts: number };
  /** What could not be measured, and why. */
  missing: string[];
  precisions: PeersPrecision[];
  cases: PeersCase[];
  costs: PeersCost[];
  ids: PeersAgreement[];
  bars: Bar[];
}

/** How bars, tables and charts name a dtype: with what the model was widened by. */
export function precisionName({ precisions }: PeersReport, dtype: string): string {
  const factor = precisions.find((one) => one.dtype === dtype)?.factor ?? 1;
  return factor > 1 ? `${dtype}, widened ${factor} times` : dtype;
}

/** The fastest way of an engine by its median, of those that are looked at. */
export function fastest(
  { ways }: Pick<PeersCase, 'ways'>,
  engine: PeersWay['engine'],
  of: (way: PeersWay) => boolean = () => true,
): PeersWay | undefined {
  return ways.filter((way) => way.engine === engine && of(way)).toSorted((a, b) => b.median - a.median)[0];
}

/** The median over turns of what was measured in each: on a machine that others use, neighbours in time compare best. */
export function inTurns(rates: readonly number[], of: readonly number[]): number {
  return median(rates.map((rate, turn) => rate / (of[turn] ?? NaN)));
}

export interface PeersSuite {
  /** A row for each way of each case. */
  rows: Record<string, string | number | boolean | null>[];
  notes: string[];
  report: PeersReport;
}

export function peersSuite(report: PeersReport): PeersSuite {
  const rows = report.cases.flatMap(({ case: name, dtype, rows: atOnce, ways }) =>
    ways.map(({ engine, way, median: tokensPerSecond, min: low, max: high, tokensPerStep, memoryBytes }) => ({
      ...{ case: name, dtype, atOnce, engine, way, tokensPerSecond, low, high, tokensPerStep, memoryBytes },
    })),
  );
  const { versions, missing, tokenizer, settings } = report;
  return {
    rows,
    notes: [
      `node-llama-cpp ${versions.nodeLlamaCpp}, llama.cpp ${versions.llamaCpp}.`,
      ...(tokenizer.pre === 'other' ? ['The tokenizer of the peer gives other ids; both got the same ones.'] : []),
      ...missing.map((what) => `Not measured: ${what}.`),
      ...(settings.quick ? ['A rough run.'] : []),
    ],
    report,
  };
}

/** The report of bench/peers as one of `redrafter bench`, for its tables and its page. */
export function asBenchReport(report: PeersReport): Report {
  const { date, commit, versions, machine, threads, engines, precisions, settings, cases } = report;
  const bandwidths = cases.flatMap(({ readBytesPerSecond }) => readBytesPerSecond);
  return {
    schema: 'redrafter-bench',
    schemaVersion: SCHEMA_VERSION,
    date,
    version: versions.redrafter,
    commit,
    machine,
    engine: {
      device: report.device,
      level: engines['redrafter']?.['level'] ?? '',
      dtype: precisions.map(({ dtype }) => dtype).join(' and '),
      threads,
    },
    model: null,
    readBytesPerSecond: bandwidths.length > 0 ? Math.round(median(bandwidths)) : null,
    settings: { ...settings, temperature: 0 },
    suites: { peers: peersSuite(report) },
    bars: report.bars,
  };
}

/** A report from a file that either program wrote. */
export function benchReportOf(parsed: unknown): Report {
  const report = parsed as Report | PeersReport;
  return report.schema === 'redrafter-bench' ? report : asBenchReport(report);
}
