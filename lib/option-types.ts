import type { Grammar } from './grammar/options.js';

/** The options of `Model.load` that decide how much memory a model takes. */
export interface MemoryOptions {
  /** Directory of a recurrent drafter for this model, or false to decode plainly. Default: false. */
  drafter?: string | false;
  /**
   * Where to run. `'auto'` takes the first CUDA device when that passes a self-test, has the dtypes, and has memory free for the
   * model, else the fastest level of the CPU; `model.info.deviceReason` says why. `'cuda'` or `'cuda:1'` takes a device by its
   * number, or rejects with ERR_BACKEND or ERR_OOM; a level of the CPU can be forced with `'cpu:avx512vnni'`, `'cpu:avx512'`, `'cpu:avx2'`, `'cpu:neon'`
   * or `'cpu:base'`. `getBackends` lists those of this machine. Default: `'auto'`.
   */
  device?: 'auto' | 'cpu' | 'cuda' | `cpu:${string}` | `cuda:${string}`;
  /**
   * Element type of the weight matrices of the model; `drafterDtype` is the drafter's. `'auto'` keeps what is stored; the others
   * convert while reading, rounding to nearest (ties to even). `'q8_0'` and `'q4_0'` quantise in groups of 32 weights of a row
   * that share a scale, to 8.5 and 4.5 bits per weight, on the CPU alone. Weights that are stored quantised
   * (`redrafter quantize`) load as they are, with `'auto'` or their own dtype. CUDA has neither quantised nor f32 matrices: there
   * `'auto'` makes bf16 of f32, and what it does not have is refused with ERR_INVALID_ARGUMENT. So is a weight that the dtype
   * cannot hold. Vectors (norms, biases) are always f32, as are activations, apart from what is multiplied by a quantised
   * matrix; KV is f32 on the CPU, and on CUDA bf16, or f16 where the embedding is. Default: `'auto'`.
   */
  dtype?: 'auto' | 'f32' | 'f16' | 'bf16' | 'q8_0' | 'q4_0';
  /**
   * Element type of the weight matrices of the drafter, with the same meanings. It changes how fast drafts are made and, slightly,
   * which are made: never the output. `'auto'` is, with AVX2 or AVX-512, `'q4_0'` with a quantised `dtype` or model, and `'q8_0'` for
   * a drafter that is stored with 16 bits, unless `dtype` is `'f32'`; else it is as `dtype`. A drafter that is stored quantised
   * stays as it is.
   * Ignored without a drafter. Default: `'auto'`.
   */
  drafterDtype?: 'auto' | 'f32' | 'f16' | 'bf16' | 'q8_0' | 'q4_0';
  /** Worker threads of the CPU backend, 1 to 1024; CUDA takes none. Default: one per hardware thread, at most 64. */
  threads?: number;
  /** Most tokens that one session can hold, 1 to the model's own limit. Default: that limit, at most 4096. */
  contextTokens?: number;
  /**
   * Tokens that the KV cache holds over all sessions, 1 to 2^31-1. Default: 4 x contextTokens, or what
   * `memoryBudgetBytes` has room for.
   */
  kvTokens?: number;
  /**
   * Most prompt tokens of one request in a forward pass, 1 to 4096, and of all requests together while any decodes. Does not
   * change results. Default: 256.
   */
  prefillChunk?: number;
  /**
   * Most bytes that the model may take in all, as `estimateMemory` counts them, 1 to 2^53-1. Without `kvTokens` the KV
   * cache is made as large as fits, but at least one full session, contextTokens, and at most the default;
   * `model.info.kvTokens` tells. Where that does not fit, or `kvTokens` is given and does not, loading rejects with ERR_OOM
   * before it reads a weight. Default: no limit.
   */
  memoryBudgetBytes?: number;
}

/** Options of `Model.load`. */
export interface LoadOptions extends MemoryOptions {
  /**
   * Requests (`generate`, `append`) that run at a time, 1 to 2^31-1, the paused ones included; more wait. Fewer at a time are
   * faster each, and slower together. Default: as many as the KV cache has room for.
   */
  maxActiveRequests?: number;
  /**
   * Requests (`generate`, `append`) that may wait to be admitted, 1 to 2^31-1; one more fails with ERR_QUEUE_FULL. A request waits
   * for an instant at least, so give it as many as are started at once. Default: 1024.
   */
  maxQueuedRequests?: number;
  /**
   * Tokens of the input of requests that wait, 1 to 2^31-1; what goes beyond fails with ERR_QUEUE_FULL. An empty queue takes a
   * request of any size. Default: 4 x kvTokens.
   */
  maxQueuedTokens?: number;
  /**
   * Called while weights are read, at most every 50 ms, with the fraction done from 0 to 1; it never falls, and the last
   * call says 1. An error thrown here fails the load, which rejects with it.
   */
  onProgress?: (fraction: number) => void;
  /**
   * Most bytes of the KV cache that may hold prefixes which no session holds any more, 0 to 2^53-1; 0 turns the reuse of
   * prefixes off. They never are in the way: what a request needs is taken from them. Default: all that is free.
   */
  prefixCacheBytes?: number;
  /** Ends loading; the promise then rejects with ERR_ABORTED. */
  signal?: AbortSignal;
}

/** Options of `model.createSession`. */
export interface SessionOptions {
  /**
   * Sessions of the same key share the keys and values of equal prefixes: what one has computed another need not
   * compute, also after the first was disposed of. A string of 1 to 1024 UTF-16 units. Give a key only to those who may
   * learn, by how fast an answer begins, that somebody else had the same prompt. Default: the session shares with nobody.
   */
  prefixKey?: string;
}

/**
 * The older tokens of a full context make room for new ones: the first `keepTokens` stay, of those after them the last
 * `floor((contextTokens - keepTokens) / 2)`, and what is between them is dropped.
 */
export interface SlidePolicy {
  /** Says that this is meant. */
  slide: true;
  /** Tokens at the beginning that are never dropped, 0 to contextTokens - 2. Default: 0. */
  keepTokens?: number;
}

/**
 * What happens when a session holds `contextTokens` tokens and more are to come. `'error'`: generation ends with
 * `finishReason: 'length'`, and an input that does not fit is refused with ERR_CONTEXT. Else it slides and goes on.
 */
export type ContextPolicy = 'error' | SlidePolicy;

/** Options of `session.append`. */
export interface AppendOptions {
  /** Whether special tokens written out in text input become those tokens. Default: false (they are plain text). */
  parseSpecialTokens?: boolean;
  /** Ends the operation; the promise then rejects with ERR_ABORTED. */
  signal?: AbortSignal;
}

/** Options of `session.save` and `model.restoreSession`. */
export interface SaveOptions {
  /** Ends the operation; the promise then rejects with ERR_ABORTED. */
  signal?: AbortSignal;
}

/**
 * Options of `session.generate`. Output ids do not depend on `beamWidth`, `beamLength` or `drafting`, nor on
 * whether a drafter is loaded: they change speed only.
 */
export interface GenerateOptions {
  /** Most tokens to generate, 1 to 2^31-1. What is left of the context limits it too, unless it slides. Default: 256. */
  maxTokens?: number;
  /** What happens when the context is full. Default: `'error'`. */
  contextPolicy?: ContextPolicy;
  /** 0 to 100: 0 takes the most probable token, above 0 samples. Default: 0. */
  temperature?: number;
  /** Samples among the k most probable tokens, 0 to 2^31-1; 0 for all. Default: 0. */
  topK?: number;
  /** Samples among the smallest set of most probable tokens with at least this mass, in (0, 1]. Default: 1 (all). */
  topP?: number;
  /** Drops tokens less probable than this fraction of the most probable one, in [0, 1). Default: 0 (none). */
  minP?: number;
  /**
   * Makes tokens that the session holds, in its prompt or generated, less probable: their logits are divided by it where
   * they are positive, else multiplied. From 0.01 to 100; below 1 makes them more probable. Default: 1 (off).
   */
  repetitionPenalty?: number;
  /** Subtracted from the logits of tokens that this call has generated, -2 to 2. Default: 0 (off). */
  presencePenalty?: number;
  /** Subtracted from the logit of a token for each time that this call has generated it, -2 to 2. Default: 0 (off). */
  frequencyPenalty?: number;
  /**
   * Added to the logits of tokens: an object or a Map of token ids to finite numbers, each from -100 to 100. At most 1024
   * ids. Default: none.
   */
  logitBias?: Readonly<Record<number, number>> | ReadonlyMap<number, number>;
  /** Token ids that are never chosen, at most 65,536 and not the whole vocabulary. Default: none. */
  bannedTokenIds?: readonly number[] | Int32Array;
  /**
   * Generated tokens before which no EOS token and none of `stopTokenIds` is chosen, 0 to 2^31-1. Stop strings, `maxTokens`
   * and, with `ignoreEos`, EOS tokens are not held back. Default: 0.
   */
  minTokens?: number;
  /**
   * What the generated text follows from its first character on: only tokens are chosen that a text of this grammar can go on
   * with. It ends where a complete text cannot go on, with `finishReason: 'stop'`; EOS tokens and `stopTokenIds` are chosen
   * behind complete texts alone. A generation that ends otherwise (`length`, a stop string, `abort`) leaves a text that may be
   * incomplete. Needs the model's tokenizer. Default: none.
   */
  grammar?: Grammar;
  /**
   * Seed of sampling: a bigint in [0, 2^64) or a safe non-negative integer. Every random draw depends only on the
   * seed, the position of the token, and what the generation dropped before it. Default: random; the result tells which.
   */
  seed?: bigint | number;
  /**
   * Beams drafted in every round, 0 to 64; 0 turns drafting off. Default: chosen for each round, like `beamLength`, from what
   * rounds cost on this machine and how far drafts got; plain decoding is one of the choices. 1 where `beamLength` is given.
   */
  beamWidth?: number;
  /** Tokens drafted per beam in every round, 0 to 8; 0 turns drafting off. Default: chosen for each round; 4 where `beamWidth` is given. */
  beamLength?: number;
  /** false decodes plainly although a drafter is loaded. Default: true. */
  drafting?: boolean;
  /** Whether to go on after an end-of-sequence token. Default: false. */
  ignoreEos?: boolean;
  /**
   * Strings that end generation: at most 64, each of 1 to 1024 UTF-16 units. The text ends right before the one found.
   * Default: none.
   */
  stop?: string | string[];
  /** Token ids that end generation, at most 1024. The id found is part of the output. Default: none. */
  stopTokenIds?: number[] | Int32Array;
  /**
   * Log-probabilities under the raw target distribution (before temperature and filters), 0 to 64: 0 for those of the
   * emitted tokens, k for those of the k most probable tokens as well. Default: none.
   */
  logprobs?: number;
  /**
   * Who goes first where not all can, -10 to 10, higher first: in the queue, and in the reading of prompts. A level counts as one
   * second of waiting, so nobody waits forever. Does not change results. Default: 0.
   */
  priority?: number;
  /**
   * Time from the call until generation ends with `finishReason: 'deadline'` and the tokens there are, none if it still waits; 1 to
   * 2^31-1 milliseconds. Looked at once per round. Default: none.
   */
  deadlineMs?: number;
  /**
   * Tokens that may be unread while the generation is iterated, 1 to 2^31-1: with more it pauses, and goes on when they are read.
   * It does not pause when it is not iterated or after a call of `result()`. Does not change results. Default: 64.
   */
  bufferTokens?: number;
  /**
   * Whether special tokens written out in text input (`<|im_start|>`, `</s>`) become those tokens. Default: false:
   * in text and in chat messages they are plain text, so that data cannot pose as structure.
   */
  parseSpecialTokens?: boolean;
  /** Ends generation within one round; iteration and `result()` then reject with ERR_ABORTED. */
  signal?: AbortSignal;
}

/** Options of `session.generateMany`: those of `generate`, and how many samples. */
export interface GenerateManyOptions extends GenerateOptions {
  /** Samples to generate, 1 to 128. Sample i is generated with the seed `seed` + i (modulo 2^64). Default: 1. */
  n?: number;
}
