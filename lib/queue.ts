import type { NativeUsage } from './native.js';

/** The requests of a model: calls of `session.generate` and `session.append` that have not ended. */
export interface QueueUsage {
  /** Requests that wait to be admitted. */
  waitingRequests: number;
  /** Tokens of their input. */
  waitingTokens: number;
  /** Requests that were admitted, as of the last round. */
  activeRequests: number;
  /** Of them, those that pause because their tokens are not read; see `bufferTokens` of `GenerateOptions`. */
  pausedRequests: number;
  /** Requests that may wait, as loaded. */
  maxQueuedRequests: number;
  /** Tokens that may wait, as loaded. */
  maxQueuedTokens: number;
}

export function queueUsageOf(native: NativeUsage): QueueUsage {
  const { waitingRequests, waitingTokens, activeRequests, pausedRequests, maxQueuedRequests, maxQueuedTokens } = native;
  return { waitingRequests, waitingTokens, activeRequests, pausedRequests, maxQueuedRequests, maxQueuedTokens };
}
