/** What `redrafter bench --json` writes. docs/performance.md documents it; a field changes its meaning only with the version. */
import type { Bar } from './bars.js';
import type { Machine } from './machine.js';
import type { E2eSuite } from './suites/e2e.js';
import type { OpsSuite } from './suites/ops.js';
import type { PeersSuite } from './peers-report.js';
import type { ShapesSuite } from './suites/shapes.js';
import type { StudySuite } from './suites/study.js';

/** Grows when a field changes or goes; new fields may come within a version. */
export const SCHEMA_VERSION = 1;

export const SUITES = ['e2e', 'shapes', 'study', 'ops', 'peers'] as const;
export type SuiteName = (typeof SUITES)[number];

/** Where the model ran. */
export interface EngineUsed {
  device: string;
  level: string;
  dtype: string;
  threads: number;
}

export interface ModelUsed {
  /** Name of the directory. */
  name: string;
  drafters: string[];
  /** Of the target, as loaded. */
  weightBytes: number;
  /** What a plain step reads of them: all but an embedding of its own, which gives a row. */
  stepBytes: number;
  /** How many times each unit of the model is there; null where it was taken as it is. */
  widened: number | null;
}

/** A suite that cannot run here, and why. */
export interface NotAvailable {
  notAvailable: string;
}

export interface Report {
  schema: 'redrafter-bench';
  schemaVersion: typeof SCHEMA_VERSION;
  date: string;
  version: string;
  commit: string | null;
  machine: Machine;
  /** Null where only suites ran that load no model. */
  engine: EngineUsed | null;
  model: ModelUsed | null;
  /** What reading memory gives with as many threads, in bytes per second; null on CUDA, and where no model was loaded. */
  readBytesPerSecond: number | null;
  settings: {
    quick: boolean;
    /** Prompts of each set that were used. */
    prompts: number;
    /** Tokens that each prompt was continued by. */
    tokens: number;
    /** Trials of each way, of which the median counts. */
    turns: number;
    temperature: number;
  };
  suites: {
    e2e?: E2eSuite;
    shapes?: ShapesSuite;
    study?: StudySuite;
    ops?: OpsSuite | NotAvailable;
    peers?: PeersSuite | NotAvailable;
  };
  bars: Bar[];
}
