/**
 * The boundary: the only file that loads the `.node`, and the type of every native call.
 *
 * Native code speaks token ids; text, stop strings and option checking live in `lib/`. An engine is one model
 * with its own thread. Work is submitted with a `ticket` chosen by the caller and answered by messages that
 * carry it; the engine delivers all messages of a round in one call of `onMessages`.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { RedrafterError } from './errors.js';

/** Checked options of one engine; see `Model.load` for meaning and defaults. */
export interface NativeEngineOptions {
  model: string;
  /** Drafter directory, or null for plain decoding. */
  drafter: string | null;
  device: string;
  threads: number;
  /** Most tokens of one session, 0 for the model's own limit (at most 4096 unless asked for more). */
  contextTokens: number;
  /** Tokens the KV cache holds over all sessions, 0 for 4 x contextTokens. */
  kvTokens: number;
  /** Most prompt tokens of one request in a pass, 0 for 256. Never changes a result. */
  prefillChunk: number;
}

export interface NativeModelInfo {
  family: string;
  architecture: string;
  vocab: number;
  hidden: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  ffn: number;
  maxPositions: number;
  contextTokens: number;
  kvTokens: number;
  eosTokenIds: number[];
  dtype: string;
  device: string;
  /** Instruction-set level of the CPU backend, or the CUDA architecture. */
  level: string;
  threads: number;
  weightBytes: number;
  kvBytes: number;
  workspaceBytes: number;
  drafter: null | {
    cell: 'sum' | 'elman' | 'gru';
    format: 'apple' | 'redrafter';
    exit: number;
    blocks: number;
    draftVocab: number;
    weightBytes: number;
  };
}

export interface NativeGenerateOptions {
  maxTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  seed: bigint;
  /** 0 x 0 decodes plainly. */
  beamWidth: number;
  beamLength: number;
  /** Ids that end generation (EOS ids already merged in by the caller unless ignored). */
  eosTokenIds: Int32Array;
  stopTokenIds: Int32Array;
  /** -1: none; k >= 0: log-probability of each token and the top k. */
  logprobs: number;
}

export interface NativeStats {
  promptTokens: number;
  /** Prompt tokens whose KV was already in the session. */
  reusedTokens: number;
  tokens: number;
  rounds: number;
  draftedNodes: number;
  /** draftedByDepth[d]: rounds whose tree had a node at depth d + 1. */
  draftedByDepth: number[];
  /** acceptedByDepth[d]: rounds whose drafted token at depth d + 1 was accepted. */
  acceptedByDepth: number[];
  /** From submission to the first token. */
  firstTokenMs: number;
  prefillMs: number;
  draftMs: number;
  verifyMs: number;
  hostMs: number;
  /** From admission to the last token. */
  totalMs: number;
}

export type NativeFinish = 'eos' | 'stop' | 'length' | 'abort';

export interface NativeKvUsage {
  totalBlocks: number;
  freeBlocks: number;
  /** Tokens per block. */
  blockTokens: number;
  bytesPerBlock: number;
  sessions: number;
}

export type NativeMessage =
  | { type: 'progress'; bytes: number; totalBytes: number }
  | { type: 'ready'; info: NativeModelInfo }
  /** Loading failed, or the engine died: no more work is possible. */
  | { type: 'failed'; code: string; message: string }
  /** A ticket of openSession, forkSession, rewindSession, append or closeSession was carried out. */
  | { type: 'done'; ticket: number; tokens: number; kvTokens: number }
  | { type: 'error'; ticket: number; code: string; message: string }
  /** New tokens of a generate ticket. Logprob arrays are present when asked for; topIds is [tokens * k]. */
  | {
      type: 'tokens';
      ticket: number;
      ids: Int32Array;
      logprobs?: Float32Array;
      topIds?: Int32Array;
      topLogprobs?: Float32Array;
      /** Of these ids, how many were drafted and accepted (they come first). */
      accepted: number;
    }
  | { type: 'finish'; ticket: number; reason: NativeFinish; stats: NativeStats; tokens: number; kvTokens: number }
  | { type: 'kv'; ticket: number; data: Float32Array }
  /** The engine thread has ended; the last message. */
  | { type: 'closed' };

/** One loaded model and its thread. The constructor returns at once; loading reports by messages. */
export interface NativeEngine {
  openSession(ticket: number, session: number): void;
  /** `session` becomes a copy of `from` that shares its KV blocks. */
  forkSession(ticket: number, session: number, from: number): void;
  /** Keeps the first `tokens` tokens. */
  rewindSession(ticket: number, session: number, tokens: number): void;
  /** Appends tokens and computes their KV. */
  append(ticket: number, session: number, ids: Int32Array): void;
  /** Appends `ids`, then generates. The session must hold at least one token by then. */
  generate(ticket: number, session: number, ids: Int32Array, options: NativeGenerateOptions): void;
  /**
   * Ends an append or generate ticket within one round. `keepTokens` >= 0 cuts the generated tokens to that
   * many (a stop string was found) and reports `stop` instead of `abort`; -1 keeps what was emitted.
   */
  abort(ticket: number, keepTokens: number): void;
  closeSession(ticket: number, session: number): void;
  kvUsage(): NativeKvUsage;
  /** Answers with `kv`: the session's cached K and V, [layers, 2, tokens, kvHeads, headDim]. For tests. */
  readKv(ticket: number, session: number): void;
  /** Stops the thread after the current round; every open ticket gets ERR_DISPOSED, then `closed`. Idempotent. */
  close(): void;
  /** Whether pending work keeps the process alive. */
  ref(): void;
  unref(): void;
}

export interface NativeTensorInfo {
  name: string;
  dtype: string;
  shape: number[];
  bytes: number;
  file: string;
}

export interface NativeInspection {
  kind: 'model' | 'drafter';
  /** The checked configuration, flat. */
  config: Record<string, string | number | boolean | number[]>;
  files: string[];
  tensors: NativeTensorInfo[];
  totalBytes: number;
}

export interface NativeBackendStatus {
  name: string;
  available: boolean;
  reason: string;
}

export interface NativeModule {
  Engine: new (options: NativeEngineOptions, onMessages: (messages: NativeMessage[]) => void) => NativeEngine;
  /** Reads configuration and tensor headers, not weights. Throws with `code`. */
  inspect(directory: string): NativeInspection;
  backends(): NativeBackendStatus[];
  cpuFeatures(): string[];
  version: string;
}

const require = createRequire(import.meta.url);

let loaded: NativeModule | undefined;

/** Loads the addon once. Throws ERR_NATIVE with what to install when it is missing or does not fit. */
export function native(): NativeModule {
  if (loaded !== undefined) return loaded;
  // Both lib/ and dist/ lie in the package root.
  const root = fileURLToPath(new URL('..', import.meta.url));
  try {
    const load = require('node-gyp-build') as (root: string) => NativeModule;
    loaded = load(root);
  } catch (cause) {
    const why = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause);
    const inClone = existsSync(join(root, 'package-lock.json'));
    const build = inClone ? 'npm run build' : 'npx cmake-js build --CDREDRAFTER_TESTING=OFF';
    throw new RedrafterError('ERR_NATIVE', `the native addon cannot be loaded: ${why}`, {
      cause,
      remedy: `build it: install CMake >= 3.20 and a C++20 compiler, then run \`${build}\` in ${root}`,
    });
  }
  return loaded;
}
