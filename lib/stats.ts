import type { NativeStats } from './native.js';

/** What is counted and timed of decoding. Times are milliseconds. */
export interface DecodeStats {
  /** Tokens of the session before the first generated one. */
  promptTokens: number;
  /** Of them, those whose keys and values were in the cache already. */
  reusedTokens: number;
  /** Tokens that the session had to drop, because the context was full and `contextPolicy` said to slide. */
  droppedTokens: number;
  /** Tokens generated, the one that ended generation included. */
  tokens: number;
  /** Rounds of draft, verify and accept after the first token (which comes from reading the prompt). */
  rounds: number;
  /** Rounds that drafted; the others decoded plainly. */
  draftedRounds: number;
  /** Tree nodes that were verified, over all rounds; without the roots. */
  draftedNodes: number;
  /**
   * `draftedByDepth[d]`: rounds that drafted d + 1 tokens deep, before the least probable nodes were left out. Empty without
   * drafting.
   */
  draftedByDepth: number[];
  /** `acceptedByDepth[d]`: rounds in which the drafted token at depth d + 1 was accepted. Empty without drafting. */
  acceptedByDepth: number[];
  /** `acceptedByDepth[d] / draftedByDepth[d]`: the share of rounds, 0 to 1, whose run reached depth d + 1. */
  acceptanceByDepth: number[];
  /**
   * Tokens per round, the bonus token included; 1 for plain decoding, 0 when there was no round. Tokens after a stop string, found
   * when a round or two more had run, count here and in the rounds, but not in `tokens`.
   */
  tokensPerStep: number;
  /** From the call, its input being tokens by then, to the first one generated: admission, reading the prompt, choosing. Of several, the mean. */
  timeToFirstTokenMs: number;
  /** From the call until admission; for a request that was never admitted, until its end. Of several, the sum. */
  queuedMs: number;
  /** From admission until the prompt was read and the first token chosen. */
  prefillMs: number;
  /**
   * The drafter's share: spent drafting. A round that several requests share counts for each in equal parts. 0 on CUDA, where a
   * round is one piece.
   */
  draftMs: number;
  /** The target's share: spent in forward passes over trees, with choosing, accepting and committing; on CUDA, the round. */
  verifyMs: number;
  /** The rest of a round, between two forward passes: taking commands, building the batch, handing out tokens. */
  hostMs: number;
  /** From admission to the last token, on the clock. */
  totalMs: number;
  /** Decoding speed: tokens of all rounds per second of totalMs - prefillMs; 0 when there was no round. */
  tokensPerSecond: number;
}

/** Figures of one generation. */
export type GenerationStats = DecodeStats;

/** Sums over the generations of a session or model that have ended, those that were aborted included. */
export interface TotalStats extends DecodeStats {
  /** How many there were. */
  generations: number;
}

function derive(sum: NativeStats, generations: number): DecodeStats {
  const { rounds, totalMs, prefillMs } = sum;
  const decoded = sum.decodedTokens;
  const decodeMs = totalMs - prefillMs;
  return {
    promptTokens: sum.promptTokens,
    reusedTokens: sum.reusedTokens,
    droppedTokens: sum.droppedTokens,
    tokens: sum.tokens,
    rounds,
    draftedRounds: sum.draftedRounds,
    draftedNodes: sum.draftedNodes,
    draftedByDepth: [...sum.draftedByDepth],
    acceptedByDepth: [...sum.acceptedByDepth],
    acceptanceByDepth: sum.acceptedByDepth.map((accepted, d) => accepted / Math.max(sum.draftedByDepth[d] ?? 0, 1)),
    tokensPerStep: rounds > 0 ? decoded / rounds : 0,
    timeToFirstTokenMs: generations > 0 ? sum.firstTokenMs / generations : 0,
    queuedMs: sum.queuedMs,
    prefillMs,
    draftMs: sum.draftMs,
    verifyMs: sum.verifyMs,
    hostMs: sum.hostMs,
    totalMs,
    tokensPerSecond: rounds > 0 && decodeMs > 0 ? (decoded * 1000) / decodeMs : 0,
  };
}

export function statsOf(native: NativeStats): GenerationStats {
  return derive(native, 1);
}

function addTo(sum: number[], counts: readonly number[]): void {
  counts.forEach((count, d) => (sum[d] = (sum[d] ?? 0) + count));
}

/** Of a generation that has done nothing. */
export function noStats(): NativeStats {
  return {
    promptTokens: 0,
    reusedTokens: 0,
    droppedTokens: 0,
    tokens: 0,
    rounds: 0,
    decodedTokens: 0,
    draftedRounds: 0,
    draftedNodes: 0,
    draftedByDepth: [],
    acceptedByDepth: [],
    queuedMs: 0,
    firstTokenMs: 0,
    prefillMs: 0,
    draftMs: 0,
    verifyMs: 0,
    hostMs: 0,
    totalMs: 0,
  };
}

/** Adds up generations. */
export class StatsTotal {
  private generations = 0;
  /** Those that gave a token, kept or not; the others have no time to the first one, and nothing decoded. */
  private started = 0;
  private readonly sum = noStats();

  add(stats: NativeStats): void {
    const { sum } = this;
    this.generations++;
    if (stats.firstTokenMs > 0) this.started++;
    for (const [key, value] of Object.entries(stats) as [keyof NativeStats, number | number[]][]) {
      if (key === 'draftedByDepth' || key === 'acceptedByDepth') addTo(sum[key], value as number[]);
      else sum[key] += value as number;
    }
  }

  snapshot(): TotalStats {
    return { generations: this.generations, ...derive(this.sum, this.started) };
  }
}
