/**
 * The boundary: the only file that loads the `.node`, and the type of every native call.
 *
 * Native code speaks token ids; text, stop strings and option checking live in `lib/`. An engine is one model
 * with its own thread. Work is submitted with a `ticket` chosen by the caller and answered by messages that
 * carry it; the engine delivers all messages of a round in one call of `onMessages`.
 */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

import { loadError } from './load-error.js';
import { packageRoot, unpacked } from './package-root.js';

/** Checked options of one engine; see `Model.load` for meaning and defaults. */
export interface NativeEngineOptions {
  model: string;
  /** Drafter directory, or null for plain decoding. */
  drafter: string | null;
  device: string;
  /** `'auto'`, `'f32'`, `'f16'`, `'bf16'`, `'q8_0'` or `'q4_0'`. */
  dtype: string;
  /** The same for the drafter, but for `'q4_0'`. */
  drafterDtype: string;
  threads: number;
  /** Most tokens of one session, 0 for the model's own limit (at most 4096 unless asked for more). */
  contextTokens: number;
  /** Tokens the KV cache holds over all sessions, 0 for 4 x contextTokens, or fewer to keep to the budget. */
  kvTokens: number;
  /** Most prompt tokens of one request in a pass, and of all requests while any decodes; 0 for 256. Never changes a result. */
  prefillChunk: number;
  /** Appends and generations that run at a time, 0 for as many as there is room for. */
  maxActiveRequests: number;
  /** Appends and generations that may wait, 0 for 1024. */
  maxQueuedRequests: number;
  /** Tokens of their input that may wait, 0 for 4 x kvTokens. */
  maxQueuedTokens: number;
  /** Most bytes of prefixes that no session holds; -1 for as many as are free. */
  prefixCacheBytes: number;
  /** Most bytes that the model takes in all, 0 for any number. */
  memoryBudgetBytes: number;
}

/**
 * Memory that a loaded model takes, in bytes. All of it is allocated while loading; the system may hand out pages of it
 * only when they are first used. Not counted, as it is small or short-lived: what reading the files takes meanwhile (some
 * MB), thread stacks, what each session and request keeps beside its KV (with penalties, biases or bans some 16 bytes for
 * each token id that they concern), and the JavaScript heap.
 */
export interface NativeMemory {
  /** Weights of the model, in the dtype they are kept in. */
  weightBytes: number;
  /** Weights of the drafter; 0 without one. */
  drafterBytes: number;
  /** The KV cache of all sessions together. */
  kvBytes: number;
  /** What forward passes, drafting and sampling work in. */
  workspaceBytes: number;
  /** The sum of the above. */
  totalBytes: number;
}

/** What a loaded model is, where it runs and what memory it takes. */
export interface NativeModelInfo {
  /** `llama`, `mistral`, `qwen2` or `qwen3`. */
  family: string;
  /** Its name in config.json, such as `LlamaForCausalLM`. */
  architecture: string;
  /** Token ids are below this. */
  vocab: number;
  /** Size of the hidden state. */
  hidden: number;
  /** Transformer layers. */
  layers: number;
  /** Attention heads. */
  heads: number;
  /** Heads of keys and values, which several attention heads can share. */
  kvHeads: number;
  /** Size of a head. */
  headDim: number;
  /** Size of the feed-forward layer. */
  ffn: number;
  /** Tokens the model was made for, rope scaling included. */
  maxPositions: number;
  /** Most tokens of one session, as loaded. */
  contextTokens: number;
  /** Tokens the KV cache holds over all sessions, as loaded. */
  kvTokens: number;
  /** Ids that end generation. */
  eosTokenIds: number[];
  /** What the model computes, as 16 hexadecimal digits: configuration and weights. Sessions are saved with it. */
  fingerprint: string;
  /**
   * Of the matrices, as they were loaded: `'f32'`, `'f16'`, `'bf16'`, `'q8_0'`, `'q4_0'`, or `'mixed'` when the file mixes them and none was
   * asked for. On CUDA, matrices stored as f32 are bf16.
   */
  dtype: string;
  /** `cpu` or `cuda`. */
  device: string;
  /** Instruction-set level of the CPU backend, or the CUDA architecture. */
  level: string;
  /** Why device `'auto'` took the CPU and not CUDA; null when it took CUDA, and when a device was asked for. */
  deviceReason: null | BackendReason;
  /** Worker threads of the CPU backend; 1 on CUDA. */
  threads: number;
  /** What was allocated; `model.memoryUsage()` also tells how much of the KV is used. */
  memory: NativeMemory;
  /** The drafter, or null when none was loaded. */
  drafter: null | {
    /** Its recurrence. */
    cell: 'sum' | 'elman' | 'gru';
    /** Whose checkpoint format it came in. */
    format: 'apple' | 'redrafter';
    /** Of its matrices, as they were loaded: `'f32'`, `'f16'`, `'bf16'`, `'q8_0'`, or `'mixed'` as stored. */
    dtype: string;
    /** Size of the vector that the head reads. */
    exit: number;
    /** Residual blocks before the head. */
    blocks: number;
    /** Tokens it can draft: the vocabulary or a part of it. */
    draftVocab: number;
  };
}

export interface NativeGenerateOptions {
  /** Tokens of the session that stay before the input; -1 for all. */
  keepTokens: number;
  maxTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  seed: bigint;
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  /** Tokens before any id that ends generation may be chosen. */
  minTokens: number;
  bannedTokenIds: Int32Array;
  /** Different ids, and what is added to their logits. */
  biasTokenIds: Int32Array;
  biases: Float32Array;
  /** The name that the provider of masks has for the matcher of its grammar; 0: the text need not follow one. */
  matcher: number;
  /** 0 x 0 decodes plainly. */
  beamWidth: number;
  beamLength: number;
  /** The engine chooses the shape of each round; `beamWidth` and `beamLength` are not looked at. */
  adaptive: boolean;
  /** Ids that end generation (EOS ids already merged in by the caller unless ignored). */
  eosTokenIds: Int32Array;
  stopTokenIds: Int32Array;
  /** -1: none; k >= 0: log-probability of each token and the top k. */
  logprobs: number;
  /** -10 to 10, higher first. */
  priority: number;
  /** From submission; 0: none. */
  deadlineMs: number;
  /** Emitted tokens that may be unread, by {@link NativeEngine.read}, before it pauses. */
  bufferTokens: number;
  /** When the context is full, the first slideKeep and the last slideTail tokens stay; -1: generation ends. */
  slideKeep: number;
  slideTail: number;
}

export interface NativeStats {
  promptTokens: number;
  /** Prompt tokens whose KV was already in the session. */
  reusedTokens: number;
  tokens: number;
  /** Tokens of the session that were dropped, as the context was full. */
  droppedTokens: number;
  rounds: number;
  /** Tokens of those rounds, also those after a stop string, which are cut off. */
  decodedTokens: number;
  /** Rounds that drafted. */
  draftedRounds: number;
  draftedNodes: number;
  /** draftedByDepth[d]: rounds that drafted d + 1 tokens deep, before the least probable nodes were left out. */
  draftedByDepth: number[];
  /** acceptedByDepth[d]: rounds whose drafted token at depth d + 1 was accepted. */
  acceptedByDepth: number[];
  /** From submission to admission. */
  queuedMs: number;
  /** From submission to the first token. */
  firstTokenMs: number;
  prefillMs: number;
  draftMs: number;
  verifyMs: number;
  hostMs: number;
  /** From admission to the last token. */
  totalMs: number;
}

export type NativeFinish = 'eos' | 'stop' | 'length' | 'abort' | 'deadline';

export interface NativeUsage {
  totalBlocks: number;
  freeBlocks: number;
  /** Tokens per block. */
  blockTokens: number;
  bytesPerBlock: number;
  sessions: number;
  /** Blocks that hold prefixes which no session holds. They are neither free nor used, and evicted when needed. */
  prefixBlocks: number;
  /** Blocks that were evicted, so far. */
  evictedBlocks: number;
  /** Blocks of the session that was asked about which other sessions hold too. */
  sharedBlocks: number;
  waitingRequests: number;
  waitingTokens: number;
  activeRequests: number;
  pausedRequests: number;
  maxQueuedRequests: number;
  maxQueuedTokens: number;
}

export type NativeMessage =
  | { type: 'progress'; bytes: number; totalBytes: number }
  | { type: 'ready'; info: NativeModelInfo }
  /** Loading failed, or the engine died: every ticket, open or later, fails with the same code. */
  | { type: 'failed'; code: string; message: string }
  /** A ticket of openSession, forkSession, rewindSession, append, saveSession, closeSession or clearPrefixes was carried out. */
  /** `reusedTokens`: of an append, tokens of the session whose KV was there when it began to compute. */
  | { type: 'done'; ticket: number; tokens: number; kvTokens: number; reusedTokens: number }
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
      /** Tokens of the session, from slideKeep on, that were dropped before these were generated. */
      dropped: number;
    }
  | { type: 'finish'; ticket: number; reason: NativeFinish; stats: NativeStats; tokens: number; kvTokens: number }
  /** A restoreSession ticket: the tokens of the session, and how many of them have their KV. */
  | { type: 'restored'; ticket: number; ids: Int32Array; kvTokens: number }
  | { type: 'kv'; ticket: number; data: Float32Array }
  /** The engine thread has ended; the last message. */
  | { type: 'closed' };

/**
 * One loaded model and its thread. The constructor returns at once; loading reports by messages. It lives until
 * `closed`, referred to or not. What `onMessages` throws becomes an uncaught exception.
 */
export interface NativeEngine {
  /** `prefixKey`: with whom it shares prefixes; empty for nobody. */
  openSession(ticket: number, session: number, prefixKey: string): void;
  /** `session` becomes a copy of `from` that shares its KV blocks. */
  forkSession(ticket: number, session: number, from: number): void;
  /** Keeps the first `tokens` tokens and puts `ids` after them, whose KV is computed when it is needed. */
  rewindSession(ticket: number, session: number, tokens: number, ids: Int32Array): void;
  /** Appends tokens and computes their KV. */
  append(ticket: number, session: number, ids: Int32Array): void;
  /** Appends `ids`, then generates. The session must hold at least one token by then. Throws ERR_QUEUE_FULL, as append does. */
  generate(ticket: number, session: number, ids: Int32Array, options: NativeGenerateOptions): void;
  /**
   * Ends an append, generate, save or restore ticket within one round. `keepTokens` >= 0 cuts the generated tokens to that
   * many (a stop string was found) and reports `stop` instead of `abort`; -1 keeps what was emitted.
   */
  abort(ticket: number, keepTokens: number): void;
  /**
   * The consumer of a generate ticket has read so many of its tokens: it pauses while more than `bufferTokens` that were
   * emitted are not read, none being so at first. -1: it does not pause.
   */
  read(ticket: number, tokens: number): void;
  closeSession(ticket: number, session: number): void;
  /** Writes the session as it is now to a file; later commands need not wait for it. */
  saveSession(ticket: number, session: number, path: string): void;
  /** Makes `session` from a file; answers with `restored`. */
  restoreSession(ticket: number, session: number, path: string): void;
  /** Of cache and queue, as of the last round; `session` is the one to ask about, or 0. */
  usage(session: number): NativeUsage;
  /** Forgets the prefixes of a key, or all for an empty one. No session: 0. */
  clearPrefixes(ticket: number, session: 0, prefixKey: string): void;
  /** Answers with `kv`: the session's cached K and V, [layers, 2, tokens, kvHeads, headDim]. For tests. */
  readKv(ticket: number, session: number): void;
  /** Number of the exchange through which {@link NativeModule.nextMasks} serves this engine. */
  maskExchange(): number;
  /** Nobody serves it any more: requests with a grammar fail with ERR_GRAMMAR_WORKER, until somebody does again. */
  failMasks(why: string): void;
  /** Stops the thread after the current round; every open ticket gets ERR_DISPOSED, then `closed`. Idempotent. */
  close(): void;
  /** Whether pending work keeps the process alive. */
  ref(): void;
  unref(): void;
}

/** A tensor of a checkpoint. */
export interface NativeTensorInfo {
  /** Its name in the file. */
  name: string;
  /** Type of its elements, as safetensors names it in lower case: `bf16`, `i32`. */
  dtype: string;
  /** Its dimensions, outermost first. */
  shape: number[];
  /** Its size in the file. */
  bytes: number;
  /** The file it lies in. */
  file: string;
}

/** What a directory holds. */
export interface NativeInspection {
  /** What the configuration is one of. */
  kind: 'model' | 'drafter';
  /** The checked configuration, flat. */
  config: Record<string, string | number | boolean | number[]>;
  /** The weight files. */
  files: string[];
  /** All tensors. */
  tensors: NativeTensorInfo[];
  /** Size of all tensors, in bytes. */
  totalBytes: number;
}

/** Why a backend cannot be used. */
export interface BackendReason {
  /** For programs. */
  code: BackendReasonCode;
  /** For people; may change. */
  message: string;
}

/** Why a backend cannot be used, for programs. Stable; new ones may be added as backends are. */
export type BackendReasonCode =
  /** The processor lacks instructions that this level needs. */
  | 'NO_CPU_FEATURE'
  /** This build of redrafter does not contain the backend: there is no CUDA library beside the addon. */
  | 'NOT_BUILT'
  /**
   * The CUDA library cannot be opened: it is damaged, or for another system. Or it cannot be tried: the program that does,
   * `redrafter_cuda_probe`, is missing beside it, may not be started here, or gives no answer.
   */
  | 'COMPANION_FAILED'
  /** The program that tries the CUDA library crashed: a fault of the driver, or of the library. */
  | 'COMPANION_CRASHED'
  /** The program that tries the CUDA library did not end in time. */
  | 'COMPANION_HANGS'
  /** The CUDA library belongs to another build of redrafter than the addon. */
  | 'COMPANION_MISMATCH'
  /** There is no NVIDIA driver. */
  | 'NO_DRIVER'
  /** The NVIDIA driver is older than the CUDA library needs. */
  | 'DRIVER_TOO_OLD'
  /** There is a driver but no device, or none that this process may use (`CUDA_VISIBLE_DEVICES`). */
  | 'NO_DEVICE'
  /** The device is too old: its compute capability is below 8.0. */
  | 'UNSUPPORTED_DEVICE'
  /** The device computes wrongly, or cannot compute: the message has the op and by how much it is off. */
  | 'SELF_TEST_FAILED'
  /** Too little memory of the device is free: for this model, or for anything. */
  | 'TOO_LITTLE_MEMORY'
  /** The device has no matrices of the `dtype` or `drafterDtype` that was asked for. */
  | 'UNSUPPORTED_DTYPE';

export interface NativeBackendStatus {
  device: string;
  backend: 'cpu' | 'cuda';
  level: string | null;
  available: boolean;
  selected: boolean;
  reason: null | BackendReason;
}

export interface NativeModule {
  Engine: new (options: NativeEngineOptions, onMessages: (messages: NativeMessage[]) => void) => NativeEngine;
  /** Reads configuration and tensor headers, not weights, on a thread of its own. Rejects with `code`. */
  inspect(directory: string): Promise<NativeInspection>;
  /** What a load with these options will take; otherwise as `inspect`. */
  estimateMemory(options: NativeEngineOptions): Promise<NativeMemory>;
  getBackends(): NativeBackendStatus[];
  /**
   * Serves an engine of any thread with masks of tokens: gives the answer to the last question, or nothing, and blocks until
   * there is another one, `patienceMs` at most unless one is about to come. Empty without one, [-1] once the engine is closed.
   * The lists are those of native/spec/mask_exchange.h.
   */
  nextMasks(exchange: number, answer: Int32Array, patienceMs: number): Int32Array;
  cpuFeatures(): string[];
  version: string;
}

const load = createRequire(__filename);

let loaded: NativeModule | undefined;

/** Loads the addon once. Throws ERR_NATIVE with the reason and what to do when it is missing or does not fit. */
export function native(): NativeModule {
  if (loaded !== undefined) return loaded;
  try {
    const loadFrom = load('node-gyp-build') as (root: string) => NativeModule;
    loaded = loadFrom(dirname(unpacked(join(packageRoot, 'prebuilds'))));
  } catch (cause) {
    throw loadError(cause);
  }
  return loaded;
}
