import type { NativeStats } from './native.js';

/** Figures of one generation. Times are wall-clock milliseconds. */
export interface GenerationStats {
  /** Tokens of the session before the first generated one. */
  promptTokens: number;
  /** Of them, those whose keys and values were in the cache already. */
  reusedTokens: number;
  /** Tokens generated, the one that ended generation included. */
  tokens: number;
  /** Rounds of draft, verify and accept after the first token (which comes from reading the prompt). */
  rounds: number;
  /** Tree nodes that were verified, over all rounds; without the roots. */
  draftedNodes: number;
  /** `acceptedByDepth[d]`: rounds in which the drafted token at depth d + 1 was accepted. Empty without drafting. */
  acceptedByDepth: number[];
  /** (tokens - 1) / rounds, the bonus token of each round included; 1 for plain decoding, 0 when there was no round. */
  tokensPerStep: number;
  /** From admission until the prompt was read and the first token chosen. */
  prefillMs: number;
  /** Spent drafting. */
  draftMs: number;
  /** Spent in forward passes over trees, with accepting and committing. */
  verifyMs: number;
  /** From admission to the last token. */
  totalMs: number;
  /** Decoding speed: (tokens - 1) per second of totalMs - prefillMs; 0 when there was no round. */
  tokensPerSecond: number;
}

export function statsOf(native: NativeStats): GenerationStats {
  const { rounds, tokens, totalMs, prefillMs } = native;
  const decoded = Math.max(tokens - 1, 0);
  const decodeMs = totalMs - prefillMs;
  return {
    promptTokens: native.promptTokens,
    reusedTokens: native.reusedTokens,
    tokens,
    rounds,
    draftedNodes: native.draftedNodes,
    acceptedByDepth: native.acceptedByDepth,
    tokensPerStep: rounds > 0 ? decoded / rounds : 0,
    prefillMs,
    draftMs: native.draftMs,
    verifyMs: native.verifyMs,
    totalMs,
    tokensPerSecond: rounds > 0 && decodeMs > 0 ? (decoded * 1000) / decodeMs : 0,
  };
}
